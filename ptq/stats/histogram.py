"""A histogram that grows: bins are dyadic intervals, so that any two histograms add exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from ptq.numerics.arrays import F32, F64, I64, AnyArray
from ptq.stats.minmax import MinMax

#: The largest value falls into one of the bins RESOLUTION .. 2 * RESOLUTION - 1 from zero: at 8
#: bits there are then 16 to 32 bins to a quantization step.
RESOLUTION = 4096
#: Exponent of a histogram without bins; below any that float32 values give (-161).
EMPTY_EXPONENT = -1024

#: From here on every index has become 0 or -1.
_MAX_SHIFT = (2 * RESOLUTION).bit_length()
#: Elements counted at a time, so that intermediate results stay in the cache.
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of values in bins of width ``2^exponent``; zeros are counted apart.

    Bin ``i`` covers ``[(first + i) * 2^exponent, (first + i + 1) * 2^exponent)``. The exponent is
    a function of the largest absolute value alone, and a bin of twice the width is the union of
    two bins: so ``of(a) + of(b)`` equals ``of(a and b)`` to the bit, whatever the order.

    Attributes:
        exponent: binary logarithm of the bin width; `EMPTY_EXPONENT` without bins.
        first: index of the first bin; 0 without bins.
        counts: int64, begins and ends with a non-empty bin; at most ``4 * RESOLUTION`` bins.
        zeros: how many values are exactly zero; they are in no bin.
    """

    exponent: int
    first: int
    counts: I64
    zeros: int

    @classmethod
    def of(cls, x: AnyArray) -> Self:
        """Count an array of float32 of any shape.

        Raises:
            CalibrationError: a value is NaN or infinite.
        """
        flat: F32 = np.asarray(x, np.float32).ravel()
        seen = MinMax.of(flat)
        if seen.max_abs == 0:
            return cls(EMPTY_EXPONENT, 0, np.zeros(0, np.int64), flat.size)
        # frexp gives max_abs / 2^k in [1/2, 1), so the shift makes it [RESOLUTION, 2 RESOLUTION).
        exponent = math.frexp(seen.max_abs)[1] - (2 * RESOLUTION).bit_length() + 1
        first = math.floor(math.ldexp(seen.lo, -exponent))
        last = math.floor(math.ldexp(seen.hi, -exponent))
        counts = np.zeros(last - first + 1, np.int64)
        zeros = 0
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            counts += np.bincount(_indices(block, exponent, first), minlength=counts.size)
            if seen.lo <= 0 <= seen.hi:
                zeros += block.size - int(np.count_nonzero(block))
        if zeros:
            counts[-first] -= zeros
        return cls(exponent, *_trimmed(first, counts), zeros)

    def __add__(self, other: Self) -> Self:
        exponent = max(self.exponent, other.exponent)
        a, b = self.coarsened(exponent), other.coarsened(exponent)
        zeros = a.zeros + b.zeros
        if not a.counts.size or not b.counts.size:
            some = a if a.counts.size else b
            return type(self)(exponent, some.first, some.counts, zeros)
        first = min(a.first, b.first)
        last = max(a.first + a.counts.size, b.first + b.counts.size)
        counts = np.zeros(last - first, np.int64)
        for part in (a, b):
            at = part.first - first
            counts[at : at + part.counts.size] += part.counts
        return type(self)(exponent, first, counts, zeros)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        same = (self.exponent, self.first, self.zeros) == (other.exponent, other.first, other.zeros)
        return same and np.array_equal(self.counts, other.counts)

    @property
    def total(self) -> int:
        """How many values there are, zeros included."""
        return int(self.counts.sum()) + self.zeros

    @property
    def width(self) -> float:
        """The width of a bin; 0 without bins."""
        return math.ldexp(1.0, self.exponent) if self.counts.size else 0.0

    def edges(self) -> F64:
        """Return the ends of the bins, exact, one more than there are bins; empty without bins."""
        if not self.counts.size:
            return np.zeros(0)
        return np.asarray(np.ldexp(np.arange(self.counts.size + 1.0) + self.first, self.exponent))

    def centres(self) -> F64:
        """Return the middles of the bins, exact."""
        middles = np.arange(self.counts.size) + (self.first + 0.5)
        return np.asarray(np.ldexp(middles, self.exponent))

    def coarsened(self, exponent: int) -> Self:
        """Return the histogram with bins of width ``2^exponent``, which must not be narrower."""
        if not self.counts.size or exponent == self.exponent:
            return type(self)(exponent, self.first, self.counts, self.zeros)
        if exponent < self.exponent:
            raise ValueError(f"bins of 2^{self.exponent} cannot be split into 2^{exponent}")
        shift = min(exponent - self.exponent, _MAX_SHIFT)
        merged = 1 << shift
        before = self.first & (merged - 1)
        after = -(before + self.counts.size) % merged
        padded = np.pad(self.counts, (before, after))
        counts = padded.reshape(-1, merged).sum(axis=1)
        return type(self)(exponent, self.first >> shift, counts, self.zeros)

    def abs_counts(self, bins: int, peak: float | None = None) -> F64:
        """Return the distribution of ``|x|`` in equal bins over ``0 .. peak``, without the zeros.

        Within each bin of the histogram the values are taken as evenly spread; the outermost
        bin reaches no further than ``peak``.

        Args:
            bins: how many.
            peak: the upper end, no less than the lower end of the outermost bin; by default the
                upper end of that bin.
        """
        if not self.counts.size:
            return np.zeros(bins)
        edges = self.edges()
        outer = max(-edges[0], edges[-1])
        peak = outer if peak is None else peak
        split = min(max(-self.first, 0), self.counts.size)
        total = np.zeros(bins)
        for counts, distances in (
            (self.counts[:split][::-1], -edges[: split + 1][::-1]),
            (self.counts[split:], edges[split:]),
        ):
            if counts.size:
                total += _spread(counts, np.minimum(distances, peak), peak, bins)
        return total

    def quantile(self, p: float) -> float:
        """Return the value that the share ``p`` of the values, zeros included, does not exceed.

        Interpolates linearly inside a bin, so it is within one bin of the sample's quantile
        (numpy's ``inverted_cdf``). Of no values it is 0.
        """
        # At p = 0 the rank is that of the first value, which may be a zero.
        rank = max(p * self.total, np.finfo(np.float64).tiny)
        if not self.counts.size:
            return 0.0
        edges = self.edges()
        below = np.concatenate([[0], np.cumsum(self.counts)])
        split = min(max(-self.first, 0), self.counts.size)
        if below[split] < rank <= below[split] + self.zeros:
            return 0.0
        if rank > below[split]:
            rank -= self.zeros
        bin_ = int(np.clip(np.searchsorted(below, rank, side="left") - 1, 0, self.counts.size - 1))
        # The bin is not empty: its upper end is the first that the rank does not exceed.
        inside = (rank - below[bin_]) / self.counts[bin_]
        return float(edges[bin_] + min(max(inside, 0.0), 1.0) * (edges[bin_ + 1] - edges[bin_]))

    def abs_quantile(self, p: float) -> float:
        """Return the value that the share ``p`` of the absolute values does not exceed."""
        return self.folded().quantile(p)

    def folded(self) -> Self:
        """Return the histogram of the absolute values; a value on an edge counts below it."""
        if self.first >= 0:
            return self
        split = min(-self.first, self.counts.size)
        mirrored = self.counts[:split][::-1]
        first = -self.first - split
        rest = self.counts[split:]
        counts = np.zeros(max(first + split, rest.size), np.int64)
        counts[first : first + split] += mirrored
        counts[: rest.size] += rest
        return type(self)(self.exponent, *_trimmed(0, counts), self.zeros)

    def share_outside(self, lo: float, hi: float) -> float:
        """Return the share of the values in bins that lie wholly below ``lo`` or above ``hi``.

        That is a lower bound, by a bin at either end: an extreme of the data often lies on the
        edge of its bin, and must not count as outside of the range that ends there.
        """
        total = self.total
        if not total:
            return 0.0
        edges = self.edges()
        outside = int(self.counts[(edges[1:] <= lo) | (edges[:-1] > hi)].sum())
        return (outside + (0 if lo <= 0 <= hi else self.zeros)) / total

    def arrays(self) -> dict[str, AnyArray]:
        """Return the content as arrays, for `from_arrays`."""
        place = np.array([self.exponent, self.first, self.zeros])
        return {"place": place, "counts": self.counts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Return the summary that `arrays` came from."""
        exponent, first, zeros = arrays["place"].tolist()
        return cls(exponent, first, arrays["counts"], zeros)


def _indices(x: F32, exponent: int, first: int) -> I64:
    """Return ``floor(x / 2^exponent) - first``, exactly."""
    scaled: AnyArray
    if -127 <= exponent <= 0:
        # Multiplying by a power of two of at least 1 loses nothing, not even of a subnormal.
        scaled = x * np.float32(math.ldexp(1.0, -exponent))
    else:
        # Here float32 could underflow, or not hold the factor.
        scaled = np.ldexp(x.astype(np.float64), -exponent)
    np.floor(scaled, out=scaled)
    scaled -= first  # exact: small integers
    return scaled.astype(np.int64)


def _trimmed(first: int, counts: I64) -> tuple[int, I64]:
    """Drop empty bins at both ends."""
    if counts[0] and counts[-1]:
        return first, counts
    filled = np.flatnonzero(counts)
    return first + int(filled[0]), counts[filled[0] : filled[-1] + 1]


def _spread(counts: I64, distances: F64, peak: float, bins: int) -> F64:
    """Rebin counts between ascending distances into equal bins over ``0 .. peak``."""
    below = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(np.interp(np.linspace(0.0, peak, bins + 1), distances, below))
