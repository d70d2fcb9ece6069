"""Run the `ptq` command in tests, and see what it leaves on disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The error's line, for a command that failed as it should: exactly one, no traceback."""
        assert self.code not in (0, None)
        assert "Traceback" not in self.out + self.err
        lines = [line for line in self.err.splitlines() if line.lower().startswith("error: ")]
        assert len(lines) == 1, self.err
        assert not lines[0].endswith(".") or lines[0].startswith("Error"), "ours have no period"
        return lines[0]


def ptq(*arguments: object) -> Outcome:
    """Run a command in this process, as the entry point does."""
    from ptq.cli import main

    out, err = StringIO(), StringIO()
    argv = ["ptq", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


def command(*arguments: object) -> list[str]:
    """Return the command line of ``python -m ptq``, for a process of its own."""
    return [sys.executable, "-m", "ptq", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of such a process: it finds this checkout's `ptq`."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **variables}


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Run a command in a process of its own to its end."""
    options = {"capture_output": True, "text": True, "env": environment(), **options}
    return subprocess.run(command(*arguments), check=False, timeout=120, **options)


def contents(folder: Path) -> dict[str, str]:
    """Return everything below a folder, hidden too, with the digests of the files' contents."""
    return {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*"))}


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        return "folder" if path.is_dir() else "device"
    return hashlib.sha256(path.read_bytes()).hexdigest()
