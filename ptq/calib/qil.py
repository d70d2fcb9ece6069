"""Intervals of which the ends prune and clip: QIL, searched instead of trained."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.calib.levels import Levels
from ptq.calib.nonuniform import NonUniformSolver, Points
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: How many ends are tried: of the part that is pruned, and of the part that is clipped.
_PRUNED, _CLIPPED = 17, 48

#: Each round of refinement looks between the neighbours of the best, with so many points.
_ROUNDS, _FINER = 4, 9


class QilSolver(NonUniformSolver, frozen=True, tag="qil"):
    """An interval of least error: below it 0, above it the top, and even levels of any step.

    With center c and distance d, ``t = clip((|x| - (c - d)) / 2d, 0, 1)`` becomes
    ``k = round(t (2^bits - 1))`` and k stands for ``a k``: what encodes is not what decodes. The
    paper trains c and d, and lets the next layer learn a. Here a grid over both ends is searched
    for the least squared error, with the best a of each in closed form, and refined around the best
    point. An interval from 0 is a uniform grid, so that the error is never more than that of one
    of these, but for the 256 codes that levels are rounded to.

    The paper has activations of one sign. Those of both get the form that weights have,
    ``sign(x) a k`` with k up to ``2^(bits-1) - 1``.
    """

    paper: ClassVar[str] = (
        "Jung et al., Learning to Quantize Deep Networks by Optimizing Quantization Intervals with "
        "Task Loss, CVPR 2019, equations 2 and 3"
    )
    good_for: ClassVar[str] = "2 and 3 bits on hardware that encodes as it decodes otherwise"
    two_sided: ClassVar[str] = "given levels that are even about 0"

    def fitted(self, stats: TensorStats, points: Points, qtype: QType) -> Levels:
        """Return the levels of the best interval."""
        both = points.x[0] < 0 < points.x[-1]
        top = 2 ** (qtype.bits - both) - 1
        order = np.argsort(np.abs(points.x), kind="stable")
        folded = Points.with_mass(np.abs(points.x)[order], points.mass[order])
        p, u, step = _search(folded, top)
        starts = _starts(p, u, top)
        values = step * np.arange(top + 1)
        if both:
            below = np.nextafter(-starts[::-1], -np.inf)
            return Levels.of(
                np.concatenate([-values[:0:-1], values]), np.concatenate([below, starts])
            )
        if points.x[0] < 0:
            # values below, not at, a start go further down
            return Levels.of(0.0 - values[::-1], np.nextafter(-starts[::-1], -np.inf))
        return Levels.of(values, starts)


def _search(points: Points, top: int) -> tuple[float, float, float]:
    """Return the ends of the best interval, and what a code stands for."""
    most = float(points.x[-1])
    pruned = np.linspace(0.0, 0.5, _PRUNED) * most
    clipped = np.linspace(0.0, 1.0, _CLIPPED + 1)[1:] * most
    best, at = -1.0, (0.0, most, most / top)
    for _ in range(1 + _ROUNDS):
        for p in pruned:
            for u in clipped[clipped > p]:
                gain, step = _gain(points, float(p), float(u), top)
                if gain > best and step > 0:
                    best, at = gain, (float(p), float(u), step)
        pruned = _between(pruned, at[0])
        clipped = _between(clipped, at[1])
    return at


def _between(grid: F64, best: float) -> F64:
    """Return a finer grid between the neighbours of a point; the point is one of it."""
    at = int(np.argmin(np.abs(grid - best)))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, grid.size - 1)]
    finer = np.linspace(low, high, _FINER)
    return np.unique(np.append(finer, best))


def _gain(points: Points, p: float, u: float, top: int) -> tuple[float, float]:
    """Return by how much the squared error is less than with all 0, and what a code stands for.

    Of codes k the best step is ``<x, k> / <k, k>``, and the gain ``<x, k>^2 / <k, k>``.
    """
    count, total, _ = points.within(_starts(p, u, top))
    codes = np.arange(top + 1.0)
    squares = float(codes * codes @ count)
    if not squares:
        return 0.0, 0.0
    product = float(codes @ total)
    return product * product / squares, product / squares


def _starts(p: float, u: float, top: int) -> F64:
    """Return where the codes from 1 on begin."""
    return np.asarray(p + (np.arange(top) + 0.5) / top * (u - p))
