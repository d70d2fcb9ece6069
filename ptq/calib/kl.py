"""Range of least Kullback-Leibler divergence between the values and their quantized form."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.entropy import Prefix, divergences, without_spike
from ptq.calib.percentile import covering
from ptq.numerics.arrays import F64, I64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats
from ptq.stats.histogram import Histogram

#: Divergences closer than this are equal: it is what rounding makes of sums of this size.
_TIE = 1e-12
#: The search over two ends looks at every so many bins first.
_STRIDE = 8
#: Rounds of moving one end, then the other, if it does not settle before.
_ROUNDS = 12
#: The search over two ends begins with so many factors common to both.
_SHARES = 128


class KlSolver(Solver, frozen=True, tag="kl"):
    """Least loss of information (KL divergence), as TensorRT calibrates, made safe for ReLU.

    Symmetric, or for a tensor of one sign, the threshold is searched among all bins of the
    histogram of ``|x|``: with ``2^(bits-1)`` levels if half of the grid serves the other sign,
    else with ``2^bits``. For a tensor of both signs on an asymmetric grid the same divergence is
    taken over the signed histogram with ``2^bits`` levels. Both ends shrink by a common factor
    first, then move in turn until neither improves, on a stride of 8 bins and of 1: a local
    optimum, mostly within a few percent of the least over all pairs of ends.

    The divergence is jagged and flat. Against a brute-force search over values counted in exactly
    these bins, the one threshold has, to within a bin, a divergence within 3 % of the least; the
    threshold itself may then differ by 20 %.

    Departs from the slides, unless ``strict``, where they ruin a network (ReLU leaves half of the
    values in the first bin, and spreading that spike over a group looks like a great loss):

    * exact zeros, which every grid represents, are left out;
    * the bin next to zero holds no more than its neighbour;
    * only ranges that keep at least ``coverage`` percent of the values are searched, see
      `PercentileSolver`.

    Attributes:
        bins: how many bins from zero to the largest absolute value.
        coverage: in percent, zeros counted.
        strict: follow the slides to the letter.
    """

    paper: ClassVar[str] = "Migacz, 8-bit Inference with TensorRT, NVIDIA GTC 2017"
    good_for: ClassVar[str] = (
        "8 bits in convolutional networks, the default there; not for transformers or few bits"
    )

    bins: Annotated[int, Meta(ge=128, le=4096)] = 2048
    coverage: Annotated[float, Meta(gt=50.0, le=100.0)] = 99.99
    strict: bool = False

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of least divergence; of equals, the widest.

        On a grid of more levels than bins that is the range of the data.
        """
        data = data_range(stats)
        if not stats.hist.counts.size:
            return data
        floor = Range(0.0, 0.0)
        if not self.strict:
            floor = covering(stats, self.coverage / 100, symmetric=symmetric)
        if symmetric or data.lo == 0 or data.hi == 0:
            levels = 1 << (qtype.bits - int(symmetric))
            found = self._one_threshold(stats.hist, data, levels, floor)
        else:
            found = self._two_ends(stats.hist, data, 1 << qtype.bits, floor)
        return Range(min(found.lo, floor.lo), max(found.hi, floor.hi))

    def _one_threshold(self, hist: Histogram, data: Range, levels: int, floor: Range) -> Range:
        if levels >= self.bins:
            return data
        counts = _whole(hist.abs_counts(self.bins, data.max_abs))
        if self.strict:
            counts[0] += hist.zeros
        else:
            counts = without_spike(counts, 0)
        least = min(int(floor.max_abs / data.max_abs * self.bins), self.bins)
        stop = np.arange(max(levels, 2, least), self.bins + 1)
        best = stop[_argmin_last(divergences(counts, np.zeros_like(stop), stop, levels))]
        # The slide's threshold: the middle of the first bin that is cut off.
        bound = float(best + 0.5) * (data.max_abs / self.bins)
        return data.clipped(-bound, bound)

    def _two_ends(self, hist: Histogram, data: Range, levels: int, floor: Range) -> Range:
        width = data.max_abs / self.bins
        if levels * width >= data.hi - data.lo:
            return data
        negative, positive = int(np.ceil(-data.lo / width)), int(np.ceil(data.hi / width))
        edges = width * np.arange(-negative, positive + 1)
        below = np.concatenate([[0.0], np.cumsum(hist.counts)])
        ends = np.clip(hist.edges(), data.lo, data.hi)
        counts = _whole(np.diff(np.interp(edges, ends, below)))
        if self.strict:
            counts[negative] += hist.zeros
        else:
            counts = without_spike(counts, negative)
        least = (negative - int(-floor.lo / width), negative + int(floor.hi / width))
        start, stop = _descend(counts, negative, least, levels)
        return data.clipped((start - negative - 0.5) * width, (stop - negative + 0.5) * width)


def _whole(counts: F64) -> F64:
    """Round rebinned counts to whole ones of the same total, as if the values had been counted.

    Fractions would act as bins of nearly no count, which the divergence takes as evidence.
    """
    return np.diff(np.rint(np.concatenate([[0.0], np.cumsum(counts)])))


def _descend(counts: F64, zero: int, least: tuple[int, int], levels: int) -> tuple[int, int]:
    """Return the bins ``start .. stop`` of low divergence, moving one end at a time."""
    prefix = Prefix.of(counts)
    start, stop = _common_shrink(prefix, zero, least, levels)
    for step in (_STRIDE, 1):
        for _ in range(_ROUNDS):
            before = start, stop
            reach = counts.size if step > 1 else _STRIDE
            stops = _nearby(stop, reach, step, max(least[1], start + levels), counts.size)
            stop = _best(prefix, 0 * stops + start, stops, levels)[1]
            starts = _nearby(start, reach, step, 0, min(least[0], stop - levels))[::-1]
            start = _best(prefix, starts, 0 * starts + stop, levels)[0]
            if (start, stop) == before:
                break
    return start, stop


def _common_shrink(
    prefix: Prefix, zero: int, least: tuple[int, int], levels: int
) -> tuple[int, int]:
    """Return the best range of which both ends are the same share of the extremes."""
    share = np.arange(1, _SHARES + 1) / _SHARES
    start = np.rint(zero * (1 - share)).astype(np.int64)
    stop = np.rint(zero + (prefix.log.size - 1 - zero) * share).astype(np.int64)
    wide = (stop - start >= levels) & (start <= least[0]) & (stop >= least[1])
    return _best(prefix, start[wide], stop[wide], levels)


def _best(prefix: Prefix, start: I64, stop: I64, levels: int) -> tuple[int, int]:
    """Return the range of least divergence; of equals the last."""
    i = _argmin_last(divergences(prefix, start, stop, levels))
    return int(start[i]), int(stop[i])


def _nearby(place: int, reach: int, step: int, least: int, most: int) -> I64:
    """Return the ascending multiples of ``step`` away from ``place``, within reach and bounds."""
    lower, upper = max(least, place - reach), min(most, place + reach)
    first = place - (place - lower) // step * step
    return np.arange(first, upper + 1, step)


def _argmin_last(values: F64) -> int:
    """Return the last index of the least value, up to rounding."""
    return int(np.flatnonzero(values <= values.min() + _TIE)[-1])
