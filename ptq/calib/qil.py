"""Intervals of which the ends prune and clip: QIL, searched instead of trained."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.calib.levels import Levels
from ptq.calib.nonuniform import NonUniformSolver, Points
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: How many upper ends are tried at first, and in each round between the neighbours of the best.
_ENDS, _FINER, _ROUNDS = 64, 9, 5


class QilSolver(NonUniformSolver, frozen=True, tag="qil"):
    """An interval: below it 0, above it the top, and even levels whose step is apart from it.

    With center c and distance d, ``t = clip((|x| - (c - d)) / 2d, 0, 1)`` becomes
    ``k = round(t (2^bits - 1))``, and k stands for ``a k``: what encodes is not what decodes. The
    paper trains c and d, and leaves a to the layer that follows. Here the lower end ``c - d`` is
    where ``prune`` says, the upper end that of least squared error, and a is the least-squares
    step, in closed form.

    As the step is free, nothing has less squared error than going to the nearest level, which is
    what an interval from 0 does. So with ``prune=0`` a tensor of one sign has the grid of `mse`,
    and all that is pruned costs; that it may help the network is what training finds out
    (``--fine-tune qil``).

    The paper has activations of one sign. Those of both get the form that weights have,
    ``sign(x) a k`` with k up to ``2^(bits-1) - 1``.

    Attributes:
        prune: per cent of the values other than 0, the smallest, that lie below the interval.
    """

    paper: ClassVar[str] = (
        "Jung et al., Learning to Quantize Deep Networks by Optimizing Quantization Intervals with "
        "Task Loss, CVPR 2019"
    )
    good_for: ClassVar[str] = (
        "encoders with a dead zone; costs unless trained (--fine-tune qil), and without "
        "pruning is nearly mse"
    )
    two_sided: ClassVar[str] = "given levels that are even about 0"

    prune: Annotated[float, Meta(ge=0.0, lt=100.0)] = 0.0

    def fitted(self, stats: TensorStats, points: Points, qtype: QType) -> Levels:
        """Return the levels of the best interval."""
        top = 2 ** (qtype.bits - points.two_sided) - 1
        folded = points.folded()
        below = np.cumsum(folded.mass) <= self.prune / 100 * folded.mass.sum()
        p = float(folded.x[below][-1]) if below.any() else 0.0
        u, step = _upper_end(folded, p, top)
        return points.unfolded(step * np.arange(top + 1), _starts(p, u, top))


def _upper_end(points: Points, p: float, top: int) -> tuple[float, float]:
    """Return the upper end of the best interval from ``p``, and what a code stands for."""
    most = float(points.x[-1])
    ends = p + np.linspace(0.0, 1.0, _ENDS + 1)[1:] * (most - p)
    best, at = -1.0, (most, most / top)
    for _ in range(1 + _ROUNDS):
        for u in ends:
            gain, step = _gain(points, p, float(u), top)
            if gain > best and step > 0:
                best, at = gain, (float(u), step)
        near = int(np.argmin(np.abs(ends - at[0])))
        low, high = ends[max(near - 1, 0)], ends[min(near + 1, ends.size - 1)]
        ends = np.unique(np.append(np.linspace(low, high, _FINER), at[0]))
    return at


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
