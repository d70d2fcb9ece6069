"""Time every kernel that onnxruntime runs, and say which nodes of the model it stands for."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ptq.data.feeds import Feed
from ptq.runtime.origins import Kernel, Origins, kernels_of, read_proto
from ptq.runtime.overhead import INPUT, LENGTH, SHAPE, chain
from ptq.runtime.session import Session, open_session, run

#: The first runs are slow: memory arenas grow, caches are cold.
_WARM_UP = 3

#: The profiler drops events beyond a million; this many are 100 MB of JSON.
_MOST_EVENTS = 100_000

#: How the profiler ends the name of a node.
_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What one kernel of onnxruntime's optimized graph costs in each run of the model.

    Attributes:
        name: the node's name in the optimized graph.
        op_type: its type there, such as ``QLinearConv`` or ``ReorderInput``.
        ms: mean time of the faster half of the runs, without what the profiler adds, and without
            that of the graphs inside the node; at least 0.
        names: nodes of the model that the kernel stands for: all that were merged into it, and
            the QuantizeLinear and DequantizeLinear that it made unnecessary. Empty if it is the
            runtime's own, such as a ReorderInput or a Transpose between two layouts.
        tensors: what these nodes make.
    """

    name: str
    op_type: str
    ms: float
    names: frozenset[str]
    tensors: frozenset[str]


def profile_kernels(
    model: bytes | Path,
    feed: Feed,
    *,
    threads: int = 1,
    runs: int = 20,
    seconds: float = 0.0,
    folder: Path | None = None,
) -> tuple[KernelTime, ...]:
    """Return what each kernel of a model costs, in the order in which they run.

    The profiler counts whole microseconds. The mean over many runs tells finer differences, as
    long as a kernel's times stray by about as much; of these runs it takes the faster half, which
    neither an interrupt nor a busy neighbour reaches. What the profiler itself adds to every
    kernel is measured in the same rounds and taken off, so that the times add up to about what a
    run takes without it. Below a microsecond they mean no more than that.

    Args:
        model: a model file, or its bytes.
        feed: what to run.
        threads: threads within an operator.
        runs: how many runs to count, at least.
        seconds: go on for this long.
        folder: where the external data of a model given as bytes lies.

    Raises:
        ModelError: the model cannot be parsed.
        VerificationError: onnxruntime does not load it.
        DataError: it fails on the feed.
    """
    [found] = profile_interleaved(
        [model], [feed], threads=threads, runs=runs, seconds=seconds, folder=folder
    )
    return found


def profile_interleaved(
    models: Sequence[bytes | Path],
    feeds: Sequence[Feed],
    *,
    threads: int = 1,
    runs: int = 20,
    seconds: float = 0.0,
    folder: Path | None = None,
) -> tuple[tuple[KernelTime, ...], ...]:
    """Return what each kernel of several models costs, with their runs in turn.

    A minute in which the machine is busy with something else then slows all of them.

    Args:
        models: model files, or their bytes.
        feeds: one feed for each model.
        threads: as for `profile_kernels`, and so are the others.
        runs: how many runs of each model to count, at least.
        seconds: go on for this long, all models together.
        folder: where the external data of models given as bytes lies.

    Raises:
        PtqError: as `profile_kernels`.
    """
    with tempfile.TemporaryDirectory(prefix="ptq-") as place:
        opened = [
            _Profiled.open(model, Path(place) / str(i), threads, folder)
            for i, model in enumerate(models)
        ]
        overhead = _Overhead.open(Path(place) / "overhead", threads)
        pairs = [(p.session, feed) for p, feed in zip(opened, feeds, strict=True)]
        pairs += [(session, overhead.feed) for session in (overhead.profiled, overhead.plain)]
        for session, feed in pairs:
            for _ in range(_WARM_UP):
                run(session, feed)
        most = _MOST_EVENTS // max(len(profiled.kernels) for profiled in opened)
        plain = _run_in_turn(pairs, runs, max(runs, most), seconds)[:, -1]
        added = overhead.read(plain)
        return tuple(profiled.read(added) for profiled in opened)


@dataclass(frozen=True, slots=True)
class _Profiled:
    """A session that keeps a profile, and what its kernels stand for."""

    session: Session
    origins: Origins
    kernels: list[Kernel]

    @classmethod
    def open(cls, model: bytes | Path, place: Path, threads: int, folder: Path | None) -> _Profiled:
        proto = read_proto(model)
        origins = Origins(proto)
        if origins.renamed:  # the profile would call them by type and number
            if isinstance(model, Path):
                folder = model.absolute().parent
            model = proto.SerializeToString()
        place.mkdir()
        optimized = place / "optimized.onnx"
        session = open_session(
            model, threads=threads, folder=folder, optimized=optimized, profile=place / "profile"
        )
        kernels = kernels_of(optimized)
        for file in place.glob(f"{optimized.name}*"):
            file.unlink()  # as large as the model, and of no more use
        return cls(session, origins, kernels)

    def read(self, added_us: float) -> tuple[KernelTime, ...]:
        """End the profile and return what it says, less what it adds to each kernel."""
        times = _times_us(Path(self.session.end_profiling()))
        known = {(k.name, k.op_type): k for k in self.kernels}
        kernels = [known.get(key) or Kernel(*key, outputs=()) for key in times]
        origins = self.origins.of(kernels)
        return tuple(
            KernelTime(
                name=kernel.name,
                op_type=kernel.op_type,
                ms=max(0.0, us - added_us) / 1e3,
                names=origin.nodes,
                tensors=origin.tensors,
            )
            for kernel, origin, us in zip(kernels, origins, times.values(), strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Overhead:
    """A chain of trivial nodes, with a profile and without."""

    profiled: Session
    plain: Session
    feed: Feed

    @classmethod
    def open(cls, place: Path, threads: int) -> _Overhead:
        place.mkdir()
        model = chain()
        profiled = open_session(model, threads=threads, profile=place / "profile")
        feed = {INPUT: np.ones(SHAPE, np.float32)}
        return cls(profiled, open_session(model, threads=threads), feed)

    def read(self, plain_s: np.ndarray) -> float:
        """Return how many microseconds the profile adds to a kernel.

        Args:
            plain_s: what runs of the chain took without it.
        """
        profiled = _times_us(Path(self.profiled.end_profiling()))
        each = sum(profiled.values()) / LENGTH
        return max(0.0, each - _typical(plain_s) * 1e6 / LENGTH)


def _run_in_turn(
    pairs: Sequence[tuple[Session, Feed]], least: int, most: int, seconds: float
) -> np.ndarray:
    """Run all sessions, round after round; return the seconds each took, by round and session."""
    times: list[list[float]] = []
    began = time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - began < seconds):
        turn = len(times) % len(pairs)  # no model always runs after the same other
        took = [0.0] * len(pairs)
        for i in (*range(turn, len(pairs)), *range(turn)):
            session, feed = pairs[i]
            start = time.perf_counter()
            session.run(None, feed)
            took[i] = time.perf_counter() - start
        times.append(took)
    return np.asarray(times)


class _Arguments(msgspec.Struct):
    op_name: str = ""


class _Event(msgspec.Struct):
    cat: str
    name: str
    ts: int
    dur: int
    args: _Arguments = msgspec.field(default_factory=_Arguments)


def _times_us(profile: Path) -> dict[tuple[str, str], float]:
    """Return the microseconds of each kernel, by name and type, in the order of their first run."""
    runs: list[list[_Event]] = [[]]
    for event in msgspec.json.decode(profile.read_bytes(), type=list[_Event]):
        if event.cat == "Node" and event.name.endswith(_SUFFIX):
            runs[-1].append(event)
        elif event.name == "model_run":  # written when a run is over
            runs.append([])
    counted = runs[_WARM_UP:-1]
    totals: dict[tuple[str, str], np.ndarray] = {}
    for i, events in enumerate(counted):
        for event, own in _own_times(events):
            key = (event.name.removesuffix(_SUFFIX), event.args.op_name)
            if key not in totals:
                totals[key] = np.zeros(len(counted))
            totals[key][i] += own  # a kernel inside a loop runs several times
    return {key: _typical(us) for key, us in totals.items()}


def _own_times(events: list[_Event]) -> list[tuple[_Event, int]]:
    """Return each event with its time without those of the events inside it, in order."""
    ordered = sorted(events, key=lambda e: (e.ts, -e.dur))
    own = [event.dur for event in ordered]
    around: list[int] = []
    for i, event in enumerate(ordered):
        while around and _end(ordered[around[-1]]) < _end(event):
            around.pop()
        # neighbours may share a microsecond; only what has branches or a body holds others
        if around and ordered[around[-1]].args.op_name in _HOLDERS:
            own[around[-1]] -= event.dur
        if event.args.op_name in _HOLDERS:
            around.append(i)
    return [(event, max(0, us)) for event, us in zip(ordered, own, strict=True)]


_HOLDERS = frozenset({"If", "Loop", "Scan"})


def _end(event: _Event) -> int:
    return event.ts + event.dur


def _typical(values: np.ndarray) -> float:
    """Return the mean of the smaller half of the values."""
    return float(np.sort(values)[: (len(values) + 1) // 2].mean())
