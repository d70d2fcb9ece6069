"""Only the largest values kept, all others 0: the activations of Two-Step Quantization."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.calib.levels import Levels
from ptq.calib.nonuniform import NonUniformSolver, Points
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: Rounds at most, and how many steps they begin with: of the largest value, so many shares.
_ROUNDS, _STARTS = 100, 24


class SparseSolver(NonUniformSolver, frozen=True, tag="sparse"):
    """The top share of the values on even levels, and the rest 0.

    Of the values that are not 0, the largest ``keep`` are quantized to ``step (1 .. 2^bits - 1)``
    and the others become 0. The step is that of the least error of those that are kept, by Lloyd's
    alternation from several starts. It is the first of the two steps of the paper; the second fits
    the weights to it. With ``keep=100`` it is the rule of HWGQ (`hwgq`), fitted to the values.

    The paper has it for what a Relu puts out. Of a tensor of both signs, those of largest magnitude
    are kept, with half of the codes for each sign.

    Attributes:
        keep: per cent of the values other than 0.
    """

    paper: ClassVar[str] = (
        "Wang et al., Two-Step Quantization for Low-bit Neural Networks, CVPR 2018 "
        "(sparse quantization of activations)"
    )
    good_for: ClassVar[str] = (
        "hardware that skips zeros; 1 to 10 dB below mse, and ruinous on one network of three"
    )
    two_sided: ClassVar[str] = "kept by magnitude"

    keep: Annotated[float, Meta(gt=0.0, le=100.0)] = 75.0

    def fitted(self, stats: TensorStats, points: Points, qtype: QType) -> Levels:
        """Return the levels of the values that are kept."""
        top = 2 ** (qtype.bits - points.two_sided) - 1
        folded = points.folded()
        x, mass = folded.x, folded.mass
        below = np.cumsum(mass) <= (1 - self.keep / 100) * mass.sum()
        least = float(x[below][-1]) if below.any() else 0.0
        kept = Points.with_mass(x[~below], mass[~below])
        step = _step(kept, top)
        return points.unfolded(step * np.arange(top + 1), _starts(step, least, top))


def _starts(step: float, least: float, top: int) -> F64:
    """Return where levels begin: the first behind what is dropped, the others halfway."""
    starts = np.append(least, step * (np.arange(1, top) + 0.5))
    return np.asarray(np.maximum(least, starts))


def _step(kept: Points, top: int) -> float:
    """Return the step of least error of values that none of may become 0."""
    best, found = -1.0, float(kept.x[-1])
    codes = np.arange(1.0, top + 1)
    for share in np.linspace(1 / _STARTS, 1, _STARTS):
        step = float(kept.x[-1]) * share / top
        for _ in range(_ROUNDS):
            count, total, _ = kept.within(step * (codes[:-1] + 0.5))
            product, squares = float(codes @ total), float(codes * codes @ count)
            # <x, k>^2 / <k, k> is what the error is less by than that of all 0
            if product * product / squares > best:
                best, found = product * product / squares, product / squares
            if product / squares == step:
                break
            step = product / squares
    return found
