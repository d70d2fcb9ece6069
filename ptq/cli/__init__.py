"""The command line: parse, call one function of the library, print."""

from ptq.cli.main import main

__all__ = ["main"]
