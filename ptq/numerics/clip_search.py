"""Search for the clipping range of least loss by shrinking both ends, then each end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptq.numerics.arrays import F64, I64

#: Loss of candidates: two arrays of lower and upper ends, of shape (candidates, channels), in;
#: one array of that shape out.
Loss = Callable[[F64, F64], F64]

#: Points of a refinement; each divides the interval by ``(points - 1) / 2``.
_POINTS = 9
_REFINEMENTS = 3
#: What a narrower range must gain to be preferred, relative: 0.0004 dB. Extremes often have a
#: meaning, as the 6 of a ReLU6, and should be kept exactly where they are as good.
_GAIN = 1e-4


def search_clip(lo: F64, hi: F64, loss: Loss, shrinks: F64, *, separately: bool) -> tuple[F64, F64]:
    """Return the ends of least loss found for each channel, within ``lo .. hi``.

    The loss of a rounding quantizer has many local minima, so a grid comes first and refinement
    looks between the neighbours of its best point only. Never worse than ``lo .. hi`` itself.

    Args:
        lo: lower ends, at most 0, shape ``(channels,)``.
        hi: upper ends, at least 0, likewise.
        loss: what to minimize.
        shrinks: the grid of factors, ascending, the last one 1.
        separately: whether to shrink each end on its own after both together.
    """
    shrink_lo = shrink_hi = np.ones(lo.shape)
    least = loss(lo[None], hi[None])[0]
    shrink_lo, least = _minimize(lambda p: loss(p * lo, p * hi), shrinks, shrink_lo, least)
    shrink_hi = shrink_lo
    if separately:
        shrink_lo, least = _minimize(
            lambda p: loss(p * lo, np.broadcast_to(shrink_hi * hi, p.shape)),
            shrinks, shrink_lo, least,
        )  # fmt: skip
        shrink_hi, least = _minimize(
            lambda p: loss(np.broadcast_to(shrink_lo * lo, p.shape), p * hi),
            shrinks, shrink_hi, least,
        )  # fmt: skip
    return shrink_lo * lo, shrink_hi * hi


def _minimize(loss: Callable[[F64], F64], grid: F64, place: F64, least: F64) -> tuple[F64, F64]:
    """Return the factor of least loss of each channel and that loss, if better than the given."""
    factors = np.repeat(grid[:, None], place.size, axis=1)
    for _ in range(1 + _REFINEMENTS):
        losses = loss(factors)
        count = len(factors)
        # Of equals the last, which is the widest range.
        best = count - 1 - np.argmin(losses[::-1], axis=0)
        found = _pick(losses, best)
        better = found < least * (1 - _GAIN)
        place = np.where(better, _pick(factors, best), place)
        least = np.where(better, found, least)
        lower = _pick(factors, np.maximum(best - 1, 0))
        upper = _pick(factors, np.minimum(best + 1, count - 1))
        factors = lower + (upper - lower) * np.linspace(0.0, 1.0, _POINTS)[:, None]
    return place, least


def _pick(table: F64, rows: I64) -> F64:
    found: F64 = np.take_along_axis(table, rows[None], axis=0)[0]
    return found
