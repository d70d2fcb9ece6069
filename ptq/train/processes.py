"""Programs that end when we do, with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ptq.errors import ConfigError

#: Seconds that a program has to end by itself when it is told to.
_GRACE = 5.0


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a session of its own, and end all of it if the block ends before it."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(
            f"--trainer: cannot run '{arguments[0]}': {error.strerror}; check the path"
        ) from error
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                _end(process)


@contextmanager
def ended_after(process: subprocess.Popen[str], seconds: float | None) -> Iterator[threading.Event]:
    """Yield what tells whether time was over, and the program ended for it."""
    over = threading.Event()

    def end() -> None:
        over.set()
        _end(process)

    timer = threading.Timer(seconds or 0, end)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and what it started: ask, and then do not ask."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    # also what the program left behind, which may hold the pipe open
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
