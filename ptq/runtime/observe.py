"""Observe tensors on data: one pass of inference, memory that does not grow with the samples."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TypeVar

import numpy as np

from ptq.data.feeds import Feed, hash_feed
from ptq.errors import CalibrationError
from ptq.graph.taps import EXTREMES, TappedModel
from ptq.runtime.session import Session, open_session, run
from ptq.stats.base import TensorStats
from ptq.stats.ema import EmaMinMax
from ptq.stats.histogram import Histogram
from ptq.stats.minmax import MinMax

R = TypeVar("R")

#: Values of one tensor gathered before they are counted: large enough to amortise the call.
_BUFFERED = 1 << 16


@dataclass(frozen=True, slots=True)
class Observation:
    """What one pass over the data found.

    Attributes:
        stats: by tensor name.
        feeds: how many feeds were run.
        data_digest: SHA-256 over the feeds, in order.
        without: the same by tensor name without the feeds that were kept out; where those hold all
            values of a tensor, with them.
    """

    stats: dict[str, TensorStats]
    feeds: int
    data_digest: str
    without: dict[str, TensorStats]


def observe(  # noqa: PLR0913 - what to run, on what, and how
    tapped: TappedModel,
    feeds: Iterable[Feed],
    *,
    ema_decay: float,
    threads: int = 1,
    folder: Path | None = None,
    keep_out: Collection[int] = (),
    on_feed: Callable[[], None] = lambda: None,
) -> Observation:
    """Run the tapped model on every feed and summarize the tapped tensors.

    Feeds run on ``threads`` threads at once, each a single-threaded inference: that scales where
    the threads within one small operator do not. Results are summarized in the order of the
    feeds, so that they do not depend on ``threads``.

    Args:
        tapped: what to run.
        feeds: the calibration data; at most ``threads + 2`` feeds are in memory at once.
        ema_decay: the decay of the moving averages of minimum and maximum.
        threads: how many feeds to run at once.
        folder: where the model's external data lies.
        keep_out: positions of feeds without which there are to be statistics, too.
        on_feed: called after each feed.

    Raises:
        CalibrationError: there is no feed, or a tensor takes a value that is not finite.
        DataError: onnxruntime fails on a feed.
    """
    names = (*tapped.inputs, *(p.tensor for p in tapped.probes))
    averages = _Averages(len(names), ema_decay)
    summary, kept_out = _Summary(names), _Summary(names)
    digest = hashlib.sha256()
    session = open_session(tapped.model, folder=folder) if tapped.probes else None
    reader = _Reader(tapped, session)
    count = 0
    for readings in in_order(reader.read, _hashed(feeds, digest), threads):
        (kept_out if count in keep_out else summary).add(readings, count)
        averages.add(readings)
        count += 1
        on_feed()
    if not count:
        raise CalibrationError("there is no calibration sample; give at least one")
    stats, without = _stats(averages, summary, kept_out)
    return Observation(stats, count, digest.hexdigest(), without)


@dataclass(frozen=True, slots=True, eq=False)
class _Readings:
    """Of every tapped tensor in one feed: exact extremes, number of values, and a flat sample.

    Attributes:
        lo: float64, one for each tensor.
        hi: float64, likewise.
        sizes: int64, how many values were sampled; 0 for an empty tensor.
        samples: float32, flat.
    """

    lo: np.ndarray
    hi: np.ndarray
    sizes: np.ndarray
    samples: list[np.ndarray]


class _Reader:
    """Runs one feed and reads its probes; safe to use from several threads at once."""

    def __init__(self, tapped: TappedModel, session: Session | None) -> None:
        self.tapped = tapped
        self.session = session
        first = len(tapped.inputs)
        placed = list(enumerate(tapped.probes, start=first))
        self.reduced = {i for i, p in placed if p.hi is not None}
        self.hi = [(i, p.hi) for i, p in placed if p.hi is not None]
        self.lo = [(i, p.negated_lo) for i, p in placed if p.negated_lo is not None]
        self.totals = [(i, p.total) for i, p in placed if p.total is not None]

    def read(self, feed: Feed) -> _Readings:
        values = [feed[name] for name in self.tapped.inputs]
        found: dict[str, np.ndarray] = {}
        if self.session is not None:
            outputs = run(self.session, feed, self.tapped.outputs, where="a calibration sample")
            found = dict(zip(self.tapped.outputs, outputs, strict=True))
            values += [found[p.sample] for p in self.tapped.probes]
        lo, hi = np.zeros(len(values)), np.zeros(len(values))
        for i, value in enumerate(values):
            if i not in self.reduced and value.size:
                lo[i], hi[i] = value.min(), value.max()
        if EXTREMES in found:
            extremes = found[EXTREMES].reshape(-1)
            for pairs, into, sign in ((self.hi, hi, 1), (self.lo, lo, -1)):
                places, sources = _columns(pairs)
                into[places] = sign * extremes[sources]
            places, sources = _columns(self.totals)
            hi[places] = np.where(np.isnan(extremes[sources]), np.nan, hi[places])
        samples = [self._thinned(v) for v in values]
        sizes = np.array([v.size for v in values], np.int64)
        lo[sizes == 0] = hi[sizes == 0] = 0.0  # an empty tensor has no extremes
        # minus zero becomes zero, or the bits would depend on the order of the feeds
        return _Readings(lo + 0.0, hi + 0.0, sizes, samples)

    def _thinned(self, values: np.ndarray) -> np.ndarray:
        """A regular sample whose step shares no factor with the shape: it favours no channel."""
        step = values.size // self.tapped.sample_size
        if step < 2:
            return values.ravel()
        while any(gcd(step, extent) > 1 for extent in values.shape):
            step += 1
        return values.ravel()[::step].copy()  # a view would keep all of the values alive


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


class _Averages:
    """Moving averages over all feeds in their order.

    What it does to extremes is what `EmaMinMax` does when it is added, for all tensors at once: a
    thousand small additions for each feed would cost as much as some networks.
    """

    def __init__(self, count: int, decay: float) -> None:
        self.decay = decay
        self.batches = np.zeros(count, np.int64)
        # rows: moving averages of minimum and maximum, and the extremes of the first batch
        self.ema, self.first = np.zeros((2, count)), np.zeros((2, count))

    def add(self, readings: _Readings) -> None:
        extremes = np.stack([readings.lo, readings.hi])
        seen, begun = readings.sizes > 0, self.batches > 0
        faded = np.where(begun, extremes + self.decay * (self.ema - extremes), extremes)
        self.ema = np.where(seen, faded, self.ema)
        self.first = np.where(seen & ~begun, extremes, self.first)
        self.batches += seen

    def of(self, i: int) -> EmaMinMax:
        lo, hi = self.ema[:, i].tolist()
        first_lo, first_hi = self.first[:, i].tolist()
        return EmaMinMax(lo, hi, first_lo, first_hi, int(self.batches[i]), self.decay)


class _Summary:
    """Sums up extremes and values; memory is bounded by a buffer and a histogram for each tensor.

    What it does to extremes is what `MinMax` does when it is added.
    """

    def __init__(self, names: Sequence[str]) -> None:
        count = len(names)
        self.names = names
        self.lo, self.hi = np.full(count, np.inf), np.full(count, -np.inf)
        self.sizes = np.zeros(count, np.int64)
        self.hist: list[Histogram | None] = [None] * count
        self.buffers: list[list[np.ndarray]] = [[] for _ in names]
        self.buffered = [0] * count

    def add(self, readings: _Readings, index: int) -> None:
        finite = np.isfinite([readings.lo, readings.hi]).all(axis=0)
        if not finite.all():
            raise CalibrationError(
                f"tensor '{self.names[int(finite.argmin())]}' takes a NaN or infinite value in "
                f"calibration sample {index}; check the preprocessing of the data"
            )
        seen = readings.sizes > 0
        np.minimum(self.lo, readings.lo, out=self.lo, where=seen)
        np.maximum(self.hi, readings.hi, out=self.hi, where=seen)
        self.sizes += readings.sizes
        for i, sample in enumerate(readings.samples):
            self.buffers[i].append(sample)
            self.buffered[i] += sample.size
            if self.buffered[i] >= _BUFFERED:
                self._flush(i)

    def _flush(self, i: int) -> None:
        if not self.buffered[i]:
            return
        counted, before = Histogram.of(np.concatenate(self.buffers[i])), self.hist[i]
        self.hist[i] = counted if before is None else before + counted
        self.buffers[i] = []
        self.buffered[i] = 0

    def of(self, i: int) -> tuple[MinMax, Histogram] | None:
        """Return what was seen of a tensor, or ``None``."""
        self._flush(i)
        hist = self.hist[i]
        if hist is None:
            return None
        return MinMax(float(self.lo[i]), float(self.hi[i]), int(self.sizes[i])), hist


def _stats(
    averages: _Averages, summary: _Summary, kept_out: _Summary
) -> tuple[dict[str, TensorStats], dict[str, TensorStats]]:
    """Return the statistics of all feeds, and those without what was kept out."""
    whole: dict[str, TensorStats] = {}
    without: dict[str, TensorStats] = {}
    for i, name in enumerate(summary.names):
        ema = averages.of(i)
        parts = [
            TensorStats(found[0], ema, found[1])
            for found in (summary.of(i), kept_out.of(i))
            if found is not None
        ]
        if not parts:
            raise CalibrationError(
                f"tensor '{name}' was empty in every calibration sample; exclude its reader"
            )
        without[name] = parts[0]
        minmax, hist = parts[0].minmax, parts[0].hist
        for other in parts[1:]:
            minmax, hist = minmax + other.minmax, hist + other.hist
        whole[name] = TensorStats(minmax, ema, hist)
    return whole, without


def _hashed(feeds: Iterable[Feed], digest: hashlib._Hash) -> Iterator[Feed]:
    for feed in feeds:
        hash_feed(digest, feed)
        yield feed


def in_order(work: Callable[[Feed], R], feeds: Iterable[Feed], threads: int) -> Iterator[R]:
    """Map over the feeds on that many threads, holding few of them, results in order.

    Even one thread is one apart from the caller's: feeds are read and results are summed up while
    the network runs.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="ptq-observe") as pool:
        pending: deque[Future[R]] = deque()
        try:
            for feed in feeds:
                pending.append(pool.submit(work, feed))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
