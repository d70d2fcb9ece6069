"""KL divergence between a histogram and its quantized form, for many clipping ranges at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq.numerics.arrays import F64, I64

#: What smoothing gives to an empty bin, as a count.
EPSILON = 1e-4
#: Terms of the series in `Prefix.shifted_xlogx`. A shift is below 0.2 if two of 4096 bins are
#: filled, and counts are at least 1: the rest is then below 1e-11 of a count.
_TERMS = 12
#: Candidates whose groups are worked on together, so that they stay in the cache.
_CHUNK = 128


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Sums over the bins before each edge; every array has one entry more than there are bins."""

    counts: F64
    filled: I64
    xlogx: F64
    log: F64
    powers: tuple[F64, ...]

    @classmethod
    def of(cls, counts: F64) -> Prefix:
        """Sum up a histogram; callers with several searches over it do so once."""
        filled = counts > 0
        safe = np.where(filled, counts, 1.0)
        inverse = np.where(filled, 1.0 / safe, 0.0)
        power = filled.astype(np.float64)
        powers = []
        for _ in range(_TERMS - 1):
            power = power * inverse
            powers.append(_before(power))
        log = np.log(safe)
        return cls(
            counts=_before(counts),
            filled=np.concatenate([[0], np.cumsum(filled)]),
            xlogx=_before(counts * log),
            log=_before(log),
            powers=tuple(powers),
        )

    def shifted_xlogx(self, start: I64, stop: I64, shift: F64) -> F64:
        """Return the sum of ``(c - shift) log(c - shift)`` over the filled bins of a range.

        By Taylor's formula in the shift, whose m-th coefficient is ``c^(1-m) / (m (m-1))``.
        """

        def between(sums: F64 | I64) -> F64:
            return np.asarray(sums[stop] - sums[start], np.float64)

        total = between(self.xlogx) - shift * (between(self.filled) + between(self.log))
        power = shift
        for m, sums in enumerate(self.powers, start=2):
            power = power * shift
            total += power / (m * (m - 1)) * between(sums)
        return total


def without_spike(counts: F64, zero: int) -> F64:
    """Return counts of which the bins beside zero hold no more than their outer neighbours.

    Args:
        counts: shape ``(bins,)``.
        zero: the bin of which the lower edge is zero.
    """
    calm = counts.copy()
    for bin_, neighbour in ((zero, zero + 1), (zero - 1, zero - 2)):
        if 0 <= bin_ < counts.size and 0 <= neighbour < counts.size:
            calm[bin_] = min(counts[bin_], counts[neighbour])
    # All values are beside zero if a far outlier, unseen by the histogram, set the width.
    return calm if calm.any() else counts


def divergences(counts: F64 | Prefix, start: I64, stop: I64, levels: int) -> F64:
    """Return ``KL(P || Q)`` for every clipping range ``start[i] .. stop[i]`` of a histogram.

    P is the bins of the range, with all that lies outside added to its outermost bins. Q is the
    same bins without what lies outside, quantized: cut into ``levels`` groups of consecutive bins
    at ``floor(j * width / levels)``, each group's total spread evenly over those of its bins that
    are not empty. Both are smoothed, then normalized. Smoothing gives each empty bin `EPSILON`
    and takes what is given evenly from the filled ones.

    The cost of a range is that of its groups, not of its bins: within a group Q is constant, so
    the cross term needs only the group's total and its number of filled bins; and the entropy of
    P is a prefix sum.

    Args:
        counts: whole numbers, at least 0, not all 0; shape ``(bins,)``, fewer bins than
            ``1 / EPSILON``, or smoothing would take more than there is.
        start: first bin of each range.
        stop: one past the last bin, at least ``start + 2``. If ``start > 0`` then at least
            ``start + levels``.
        levels: how many groups.

    Returns:
        The divergences, infinite for a range without a count.

    Reference: Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    prefix = counts if isinstance(counts, Prefix) else Prefix.of(counts)
    result = np.empty(start.size)
    for i in range(0, start.size, _CHUNK):
        part = slice(i, i + _CHUNK)
        result[part] = _divergences(prefix, start[part], stop[part], levels)
    return result


def _divergences(prefix: Prefix, start: I64, stop: I64, levels: int) -> F64:
    total = prefix.counts[-1]
    kept = prefix.counts[stop] - prefix.counts[start]
    entropy, shift = _entropy(prefix, start, stop)
    cross = _cross_entropy(prefix, start, stop, levels, shift)
    with np.errstate(divide="ignore"):
        found = (entropy - cross) / total + np.log(kept) - np.log(total)
    return np.where(kept > 0, found, np.inf)


def _entropy(prefix: Prefix, start: I64, stop: I64) -> tuple[F64, F64]:
    """Return the sum of ``P log P`` over filled bins, in counts, and what smoothing takes of each.

    The outermost bins hold what lies outside.
    """
    first = prefix.counts[start + 1]
    last = prefix.counts[-1] - prefix.counts[stop - 1]
    inner = prefix.filled[stop - 1] - prefix.filled[start + 1]
    filled = inner + (first > 0) + (last > 0)
    shift = EPSILON * (stop - start - filled) / filled
    total = prefix.shifted_xlogx(start + 1, stop - 1, shift)
    for outermost in (first, last):
        total += np.where(outermost > 0, _xlogx(outermost - shift), 0.0)
    return total, shift


def _cross_entropy(prefix: Prefix, start: I64, stop: I64, levels: int, shift: F64) -> F64:
    """Return the sum of ``P log Q`` over the bins that P fills, in counts.

    In bins that P leaves empty, P and Q are `EPSILON`, and their terms cancel those of P's entropy.
    """
    width = stop - start
    filled = np.maximum(prefix.filled[stop] - prefix.filled[start], 1)
    q_shift = EPSILON * (width - filled) / filled
    bounds = start[:, None] + np.arange(levels + 1) * width[:, None] // levels
    group = np.diff(prefix.counts[bounds], axis=1)
    members = np.diff(prefix.filled[bounds], axis=1)
    log_level = np.divide(group, members, out=np.ones_like(group), where=members > 0)
    log_level -= q_shift[:, None]
    np.log(log_level, out=log_level)
    total = np.einsum("ij,ij->i", group, log_level)
    total -= shift * np.einsum("ij,ij->i", members, log_level)
    # What lies outside meets Q in an outermost bin: the level of its group if Q fills the bin.
    outside = (prefix.counts[start], prefix.counts[-1] - prefix.counts[stop])
    bins = (start, stop - 1)
    for mass, bin_, log_q in zip(outside, bins, (log_level[:, 0], log_level[:, -1]), strict=True):
        filled_by_q = prefix.filled[bin_ + 1] > prefix.filled[bin_]
        in_empty = np.where(mass > 0, (mass - shift) * np.log(EPSILON), 0.0)
        total += np.where(filled_by_q, mass * log_q, in_empty)
    return np.asarray(total)


def _before(values: F64) -> F64:
    return np.concatenate([[0.0], np.cumsum(values)])


def _xlogx(x: F64) -> F64:
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))
