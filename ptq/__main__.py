"""``python -m ptq``."""

from ptq.cli import main

main()
