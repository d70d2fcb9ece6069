"""What the benchmarks share: the zoo, jobs in processes of their own, medians, tables, results."""

import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

#: What a table shows where there is no figure.
NOT_THERE = "–"

#: Extensions of the instruction set that decide how fast integer kernels are.
_EXTENSIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
#: Variables by which the libraries below numpy take more threads than a job is to have.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: What a message would tell about where the benchmarks ran.
_WORKPLACE = re.compile(r"/\S*/ptq-bench-\w+/")
#: Load of the machine before the benchmarks add theirs: what else was running.
_LOAD = os.getloadavg()[0]


class JobError(Exception):
    """A job failed; the message is the last line of what it said."""


# -- models and data ------------------------------------------------------------------------------


def load_zoo() -> Mapping:
    """Return the models of the zoo by name: PTQ_ZOO, else ../shared/zoo beside the checkout."""
    source = Path(os.environ.get("PTQ_ZOO", ROOT.parent / "shared" / "zoo")) / "zoo.py"
    if not source.is_file():
        sys.exit(f"no model zoo at '{source.parent}'; set PTQ_ZOO to its folder")
    spec = importlib.util.spec_from_file_location("ptq_zoo", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ZOO


def write_feeds(
    feeds: Iterable[Mapping[str, np.ndarray]], folder: Path, count: int | None = None
) -> Path:
    """Write feeds as .npz files, a file a feed.

    If fewer than ``count`` are there, they are repeated from the first; by default all are written
    once.
    """
    folder.mkdir(parents=True)
    files = []
    for i, feed in enumerate(islice(feeds, count)):
        files.append(folder / f"{i:05}.npz")
        np.savez(files[-1], **feed)
    for i in range(len(files), count or 0):
        (folder / f"{i:05}.npz").hardlink_to(files[i % len(files)])
    return folder


# -- jobs -----------------------------------------------------------------------------------------


def run_job(
    name: str,
    *,
    threads: int = 1,
    cores: int | None = None,
    script: Path = ROOT / "benchmarks" / "jobs.py",
    python: str = sys.executable,
    most_s: float | None = None,
    **arguments: object,
) -> dict:
    """Run a function of jobs.py in a new process and return its result, with ``wall_s`` added.

    ``wall_s`` is the life of the process, imports and all, without ``proof_s`` of the result.

    Args:
        name: the job.
        threads: how many threads it is told to use.
        cores: how many cores it may use; by default as many as threads, so that nothing it does
            beside is free.
        script: the file of the function, if not jobs.py.
        python: what runs it, such as that of another virtual environment.
        most_s: stop it, as failed, when it takes longer.
        arguments: what else it takes.

    Raises:
        JobError: it failed, or took too long.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    paths = [str(ROOT), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment["PTQ_CACHE"] = ""  # what earlier runs measured is neither used nor added to
    with tempfile.TemporaryDirectory(prefix="ptq-bench-") as folder:
        result = Path(folder) / "result.json"
        settings = {"threads": threads, "cores": cores or threads, **arguments}
        given = json.dumps(settings, default=str)
        command = [python, str(script), name, given, str(result)]
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=most_s,
            )
        except subprocess.TimeoutExpired:
            raise JobError(f"stopped after {most_s:.0f} s") from None
        wall_s = time.perf_counter() - began
        if done.returncode:
            said = done.stderr.strip() or f"exit code {done.returncode} (out of memory?)"
            last = _WORKPLACE.sub("", said.splitlines()[-1])
            kind, _, message = last.partition(": ")
            raise JobError((message if "." in kind else f"{kind}: {message}")[:300])
        found = json.loads(result.read_text())
    return {"wall_s": wall_s - found.get("proof_s", 0.0), **found}


@dataclass
class Series:
    """The runs of one job, one a round.

    Attributes:
        name: what the job is called in tables.
        job: the function of jobs.py.
        arguments: what it is given.
        runs: its results so far.
        error: why it does not run, once it has failed.
    """

    name: str
    job: str
    arguments: dict
    runs: list[dict] = field(default_factory=list)
    error: str = ""

    def run(self) -> None:
        try:
            self.runs.append(run_job(self.job, **self.arguments))
        except JobError as error:
            self.error = str(error)

    def values(self, key: str) -> list[float]:
        """Return one figure of every round; ``a.b`` is figure b of group a."""
        found = []
        for run in self.runs:
            value = run
            for step in key.split("."):
                value = value[step]
            found.append(value)
        return found

    def median(self, key: str) -> float:
        """Return the median over the rounds; NaN if the job failed."""
        return statistics.median(self.values(key)) if self.runs else math.nan

    def spread(self, key: str) -> float:
        """Return the largest over the smallest."""
        values = self.values(key)
        return max(values) / min(values) if values else math.nan

    def as_result(self) -> dict:
        """Return what is written to the results."""
        return {"name": self.name, "runs": self.runs, "error": self.error}


def interleave(series: Sequence[Series], rounds: int, most_s: float = math.inf) -> None:
    """Run all jobs in turn, round after round, so that a slow minute hits all of them.

    A job that has taken ``most_s`` seconds altogether is not run again.
    """
    for round_ in range(rounds):
        for one in series:
            if one.error or sum(r["wall_s"] for r in one.runs) > most_s:
                continue
            one.run()
            took = one.error or f"{one.runs[-1]['wall_s']:.1f} s"
            print(f"  round {round_ + 1}/{rounds}  {one.name:24} {took}", file=sys.stderr)


# -- output ---------------------------------------------------------------------------------------


def environment() -> dict:
    """Return what the figures depend on, without names of hosts or places."""
    packages = ("ptq", "numpy", "onnx", "onnx-ir", "onnxruntime")
    return {
        "cpu": _cpuinfo("model name") or platform.machine(),
        "extensions": [e for e in _EXTENSIONS if e in _cpuinfo("flags").split()],
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": _LOAD,
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return "checkout"


def sqnr_cell(result: Mapping) -> str:
    """Return the SQNR of a result of the accuracy job for a table."""
    if "sqnr_db" not in result:
        return NOT_THERE
    return "equal" if result["sqnr_db"] is None else f"{result['sqnr_db']:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table, its columns aligned: first to the left, others to the right."""
    rows = [head, *rows]
    widths = [max(2, *(len(row[i]) for row in rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        rest = (c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))
        return f"| {' | '.join([cells[0].ljust(widths[0]), *rest])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def write_results(name: str, settings: Mapping, found: Mapping) -> None:
    """Write results as JSON under benchmarks/results/."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"environment": environment(), "settings": dict(settings), **found}
    path.write_text(json.dumps(content, indent=1, default=float) + "\n")
    print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a folder for models and data that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="ptq-bench-") as folder:
        yield Path(folder)
