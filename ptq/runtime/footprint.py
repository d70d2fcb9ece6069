"""How long a model takes to load and how much memory it needs, in a process of its own.

A process that has had other models open says nothing about either: memory that they freed is
reused, and what the largest of them needed stays its peak.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import ptq
from ptq.data.feeds import Feed
from ptq.errors import VerificationError
from ptq.runtime.session import open_session, run

#: How often a model is opened, unless that takes longer than so many seconds.
_OPENS, _SECONDS = 5, 5.0

#: Memory arenas grow in the first runs.
_RUNS = 3


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs besides time.

    Attributes:
        load_ms: time to open a session, the median of a few; the file is in the page cache.
        peak_rss_bytes: the largest resident size of a process that opens the model and runs it.
        bare_rss_bytes: how much of it Python, numpy and onnxruntime need before that.
    """

    load_ms: float
    peak_rss_bytes: int
    bare_rss_bytes: int


def measure_footprint(model: Path, feed: Feed, *, threads: int = 1) -> Footprint:
    """Open and run a model in a new process, and return what that took.

    Raises:
        VerificationError: it fails there.
    """
    with tempfile.TemporaryDirectory(prefix="ptq-") as folder:
        feeds, result = Path(folder) / "feed.npz", Path(folder) / "result.json"
        # numpy writes strings of one width only, unless it may pickle
        arrays: dict[str, Any] = {f"a{i}": _plain(a) for i, a in enumerate(feed.values())}
        np.savez(feeds, **arrays)
        job = _Job(str(model.absolute()), str(feeds), tuple(feed), threads, str(result))
        command = [sys.executable, "-P", "-m", __name__, msgspec.json.encode(job).decode()]
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode or not result.is_file():
            said = done.stderr.strip().splitlines()
            reason = said[-1] if said else f"exit code {done.returncode}; out of memory?"
            raise VerificationError(
                f"'{model}' does not run in a process of its own: {reason.removesuffix('.')}"
            )
        return msgspec.json.decode(result.read_bytes(), type=Footprint)


class _Job(msgspec.Struct, frozen=True):
    """What the process is told."""

    model: str
    feed: str
    names: tuple[str, ...]
    threads: int
    result: str


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(np.str_) if array.dtype.kind == "O" else array


def _environment() -> dict[str, str]:
    """Return the variables with which the process finds the `ptq` that runs here."""
    paths = [str(Path(ptq.__file__).absolute().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _work(job: _Job) -> Footprint:
    """Do what `measure_footprint` says, in this process."""
    import onnxruntime  # noqa: F401 - part of what a process needs without the model

    with np.load(job.feed) as arrays:
        feed = {name: arrays[f"a{i}"] for i, name in enumerate(job.names)}
    bare = _peak_rss_bytes()
    took = []
    began = time.perf_counter()
    for i in range(_OPENS):
        start = time.perf_counter()
        session = open_session(Path(job.model), threads=job.threads)
        took.append(time.perf_counter() - start)
        if i == 0:
            for _ in range(_RUNS):
                run(session, feed)
            peak = _peak_rss_bytes()
        del session
        if time.perf_counter() - began > _SECONDS:
            break
    load_ms = statistics.median(took) * 1e3
    return Footprint(load_ms=load_ms, peak_rss_bytes=peak, bare_rss_bytes=bare)


def _peak_rss_bytes() -> int:
    """Return the largest resident size until now.

    Not what `resource` tells: that begins, on Linux, at the size of the process that started this
    one.
    """
    status = Path("/proc/self/status")
    text = status.read_text(encoding="ascii", errors="replace") if status.is_file() else ""
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=_Job)
    Path(given.result).write_bytes(msgspec.json.encode(_work(given)))
