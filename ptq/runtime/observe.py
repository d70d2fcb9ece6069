"""Observe tensors on data: one pass of inference, memory that does not grow with the samples."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TypeVar

import numpy as np

from ptq.data.feeds import Feed, hash_feed
from ptq.errors import CalibrationError
from ptq.graph.taps import Probe, TappedModel
from ptq.runtime.session import Session, open_session, run
from ptq.stats.base import TensorStats
from ptq.stats.ema import EmaMinMax
from ptq.stats.histogram import Histogram
from ptq.stats.minmax import MinMax

R = TypeVar("R")
S = TypeVar("S", MinMax, EmaMinMax, Histogram)

#: Values of one tensor gathered before they are counted: large enough to amortise the call.
_BUFFERED = 1 << 16


@dataclass(frozen=True, slots=True)
class Observation:
    """What one pass over the data found.

    Attributes:
        stats: by tensor name.
        feeds: how many feeds were run.
        data_digest: SHA-256 over the feeds, in order.
    """

    stats: dict[str, TensorStats]
    feeds: int
    data_digest: str


def observe(
    tapped: TappedModel,
    feeds: Iterable[Feed],
    *,
    sample_size: int,
    ema_decay: float,
    threads: int = 1,
    folder: Path | None = None,
    on_feed: Callable[[], None] = lambda: None,
) -> Observation:
    """Run the tapped model on every feed and summarize the tapped tensors.

    Feeds run on ``threads`` threads at once, each a single-threaded inference: that scales where
    the threads within one small operator do not. Results are summarized in the order of the
    feeds, so that they do not depend on ``threads``.

    Args:
        tapped: what to run.
        feeds: the calibration data; at most ``2 * threads`` feeds are in memory at once.
        sample_size: how many values of a tensor enter its histogram from each feed, about.
            Minimum and maximum are of all values.
        ema_decay: the decay of the moving averages of minimum and maximum.
        threads: how many feeds to run at once.
        folder: where the model's external data lies.
        on_feed: called after each feed.

    Raises:
        CalibrationError: there is no feed, or a tensor takes a value that is not finite.
        DataError: onnxruntime fails on a feed.
    """
    names = (*tapped.inputs, *(p.tensor for p in tapped.probes))
    summary = _Summary(names, ema_decay)
    digest = hashlib.sha256()
    session = open_session(tapped.model, folder=folder) if tapped.probes else None
    reader = _Reader(tapped, session, sample_size)
    count = 0
    for readings in _in_order(reader.read, _hashed(feeds, digest), threads):
        summary.add(readings, count)
        count += 1
        on_feed()
    if not count:
        raise CalibrationError("there is no calibration sample; --calib-data must hold at least one")
    return Observation(summary.stats(), count, digest.hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """Of one tensor in one feed: exact extremes, number of values, and a flat sample."""

    lo: float
    hi: float
    size: int
    sample: np.ndarray


class _Reader:
    """Runs one feed and reads its probes; safe to use from several threads at once."""

    def __init__(
        self,
        tapped: TappedModel,
        session: Session | None,
        sample_size: int,
    ) -> None:
        self.tapped = tapped
        self.session = session
        self.sample_size = sample_size
        wanted = (n for p in tapped.probes for n in (p.sample, p.hi, p.negated_lo) if n)
        self.outputs = list(dict.fromkeys(wanted))

    def read(self, feed: Feed) -> list[_Reading]:
        readings = [self._whole(feed[name]) for name in self.tapped.inputs]
        if self.session is None:
            return readings
        values = run(self.session, feed, self.outputs, where="a calibration sample")
        found = dict(zip(self.outputs, values, strict=True))
        readings += [self._probe(p, found) for p in self.tapped.probes]
        return readings

    def _probe(self, probe: Probe, found: dict[str, np.ndarray]) -> _Reading:
        sample = found[probe.sample]
        if probe.hi is None:
            return self._whole(sample)
        hi = float(found[probe.hi].max())
        lo = 0.0 if probe.negated_lo is None else -float(found[probe.negated_lo].max())
        return _Reading(lo, hi, sample.size, self._thinned(sample))

    def _whole(self, values: np.ndarray) -> _Reading:
        if not values.size:
            return _Reading(0.0, 0.0, 0, values.ravel())
        lo, hi = float(values.min()), float(values.max())
        return _Reading(lo, hi, values.size, self._thinned(values))

    def _thinned(self, values: np.ndarray) -> np.ndarray:
        """A regular sample whose step shares no factor with the shape: it favours no channel."""
        step = values.size // self.sample_size
        if step < 2:
            return values.ravel()
        while any(gcd(step, extent) > 1 for extent in values.shape):
            step += 1
        return values.ravel()[::step]


class _Summary:
    """Sums up readings; memory is bounded by a buffer and one histogram for each tensor."""

    def __init__(self, names: Sequence[str], ema_decay: float) -> None:
        self.names = names
        self.decay = ema_decay
        self.minmax: list[MinMax | None] = [None] * len(names)
        self.ema: list[EmaMinMax | None] = [None] * len(names)
        self.hist: list[Histogram | None] = [None] * len(names)
        self.buffers: list[list[np.ndarray]] = [[] for _ in names]
        self.buffered = [0] * len(names)

    def add(self, readings: Sequence[_Reading], index: int) -> None:
        for i, reading in enumerate(readings):
            if not np.isfinite(reading.lo) or not np.isfinite(reading.hi):
                raise CalibrationError(
                    f"tensor '{self.names[i]}' takes a NaN or infinite value in calibration sample "
                    f"{index}; check the preprocessing of the data"
                )
            if not reading.size:
                continue
            seen = MinMax(reading.lo, reading.hi, reading.size)
            averaged = EmaMinMax.of_range(reading.lo, reading.hi, self.decay)
            self.minmax[i] = _plus(self.minmax[i], seen)
            self.ema[i] = _plus(self.ema[i], averaged)
            self.buffers[i].append(reading.sample)
            self.buffered[i] += reading.sample.size
            if self.buffered[i] >= _BUFFERED:
                self._flush(i)

    def _flush(self, i: int) -> None:
        if not self.buffers[i]:
            return
        counted = Histogram.of(np.concatenate(self.buffers[i]))
        self.hist[i] = _plus(self.hist[i], counted)
        self.buffers[i] = []
        self.buffered[i] = 0

    def stats(self) -> dict[str, TensorStats]:
        found: dict[str, TensorStats] = {}
        for i, name in enumerate(self.names):
            self._flush(i)
            minmax, ema, hist = self.minmax[i], self.ema[i], self.hist[i]
            if minmax is None or ema is None or hist is None:
                raise CalibrationError(
                    f"tensor '{name}' was empty in every calibration sample; exclude its reader"
                )
            found[name] = TensorStats(minmax, ema, hist)
        return found


def _plus(a: S | None, b: S) -> S:
    return b if a is None else a + b


def _hashed(feeds: Iterable[Feed], digest: hashlib._Hash) -> Iterator[Feed]:
    for feed in feeds:
        hash_feed(digest, feed)
        yield feed


def _in_order(work: Callable[[Feed], R], feeds: Iterable[Feed], threads: int) -> Iterator[R]:
    """Map over the feeds on that many threads, holding few of them, results in order."""
    if threads == 1:
        yield from map(work, feeds)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="ptq-observe") as pool:
        pending: deque[Future[R]] = deque()
        try:
            for feed in feeds:
                pending.append(pool.submit(work, feed))
                if len(pending) >= 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
