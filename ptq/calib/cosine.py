"""Range of the least angle between the values and their quantized form."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.squared_error import SquaredError
from ptq.numerics.affine import qparams_from_range
from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: The least share of the extremes that is tried: that of the reference.
_LEAST = 0.5

#: Cosines that differ by less are equal: that of a constant is 1 whatever is clipped, but for the
#: rounding of sums over thin bins.
_ALIKE = 1e-8


class CosineSolver(Solver, frozen=True, tag="cosine"):
    """Largest cosine between the values and their quantized form, by a common factor on both ends.

    What it does not mind, and `mse` does, is that clipping makes all values smaller. Departs from
    the reference in that the cosine is that of the tensor itself and not of the layer behind it,
    and in that no factor above 1 is tried, which would leave codes unused.

    Attributes:
        steps: how many factors from 0.5 to 1 are tried.
    """

    paper: ClassVar[str] = (
        "Wu et al., EasyQuant: Post-training Quantization via Scale Optimization, 2020, section 3"
    )
    good_for: ClassVar[str] = (
        "8 bits, as mse; no less than half of the extremes is kept, so not for few bits"
    )

    steps: Annotated[int, Meta(ge=2, le=1000)] = 100

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of the largest cosine; of equals, the widest."""
        data = data_range(stats)
        if not stats.hist.counts.size:
            return data
        factors = np.linspace(_LEAST, 1.0, self.steps)
        params = qparams_from_range(
            factors * data.lo, factors * data.hi, qtype, symmetric=symmetric, axis=0
        )
        zero_point = params.zero_point.astype(np.float64)
        found = cosines(stats, params.scale, qtype.qmin - zero_point, qtype.qmax - zero_point)
        alike = found >= found.max() - _ALIKE
        best = float(factors[alike].max())
        return Range(best * data.lo, best * data.hi)


def cosines(stats: TensorStats, scale: AnyArray, least: AnyArray, most: AnyArray) -> F64:
    """Return the cosine for every grid, values spread as in `SquaredError`; 0 if all become 0.

    With ``t = x / s`` and ``q`` the code, ``q t^2 / 2 + (q / 4 - q^3) / 6`` is a continuous
    antiderivative of ``t q``, and ``q^2 (t - q) + q (2 q^2 + 1) / 6`` one of ``q^2``.

    Args:
        stats: of a tensor that is not all zeros.
        scale: steps, shape ``(grids,)``.
        least: smallest code minus zero point, likewise.
        most: largest code minus zero point, likewise.
    """
    spread = SquaredError.of(stats)
    step = np.ldexp(scale.astype(np.float64), -spread.exponent)
    found = np.zeros(step.size)
    for i, s in enumerate(step):
        t = spread.points / s
        q = np.clip(np.rint(t), least[i], most[i])
        product = (q * t * t / 2 + (q / 4 - q**3) / 6) @ spread.weights
        square = (q * q * (t - q) + q * (2 * q * q + 1) / 6) @ spread.weights
        energy = (t**3 / 3) @ spread.weights
        if square > 0 and energy > 0:
            found[i] = product / np.sqrt(square * energy)
    return found
