"""Half-wave Gaussian quantization: the grid that is best for a normal distribution."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.levels import Levels
from ptq.calib.moments import Moments
from ptq.calib.normal_steps import half_step, whole_step
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class HwgqSolver(Solver, frozen=True, tag="hwgq"):
    """The grid of least error if positive values are half of a normal distribution.

    Of a tensor that a Relu puts out, only the deviation counts, ``sigma = sqrt(E[x^2 | x > 0])``:
    the paper takes it for 1, as it is after batchnorm. Levels are multiples of a step.

    * ``rule=nearest``, the default: 0 and ``2^bits - 1`` steps, to the nearest of which a value
      goes. The step is 0.6508 sigma at 2 bits, for an error of 0.0469 sigma^2.
    * ``rule=paper``: all that is positive becomes one step at least (``t_1 = 0``). The
      step is 0.5388 sigma at 2 bits (the authors': 0.538), 0.3217 at 3 and 0.1842 at 4, for an
      error of 0.0864 sigma^2 at 2 bits. It is a table from codes of 8 bits, so that what is less
      than half of their step stays 0. Only below 8 bits; the rest is as ``nearest``.

    The paper has none of both signs: such a tensor gets the grid that is best for a normal
    distribution of its mean and deviation (Max 1960). Ranges end no later than the data.

    Attributes:
        rule: where values go.
    """

    paper: ClassVar[str] = (
        "Cai et al., Deep Learning with Low Precision by Half-wave Gaussian Quantization, CVPR 2017"
    )
    good_for: ClassVar[str] = "a range from one moment, without a search; up to 5 dB below mse"
    two_sided: ClassVar[str] = "given the best grid for a normal distribution (Max 1960)"

    rule: Literal["nearest", "paper"] = "nearest"

    @property
    def uniform(self) -> bool:
        """Whether the rule is that of the nearest."""
        return self.rule == "nearest"

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range, within the data's extremes; costs O(bins)."""
        data = data_range(stats)
        one_sided = data.lo == 0 or data.hi == 0
        if not stats.hist.counts.size:
            return data
        moments = Moments.of(stats, centred=not (one_sided or symmetric), zeros=not one_sided)
        if one_sided:
            # half of a symmetric grid is for the other sign
            top = 2 ** (qtype.bits - symmetric) - 1
            reach = top * half_step(max(top, 1), zero=True) * moments.sigma
            return data.clipped(-reach, reach)
        reach = (qtype.levels - 1) / 2 * whole_step(2**qtype.bits) * moments.sigma
        return data.clipped(moments.mean - reach, moments.mean + reach)

    def levels(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Levels | None:
        """Return the paper's levels of a tensor of one sign."""
        data = data_range(stats)
        if not stats.hist.counts.size or data.lo < 0 < data.hi:
            return None
        count = 2**qtype.bits - 1
        moments = Moments.of(stats, centred=False, zeros=False)
        steps = np.arange(count + 1) * half_step(count, zero=False) * moments.sigma
        starts = np.append(0.0, (steps[1:-1] + steps[2:]) / 2)
        if data.hi > 0:
            return Levels.of(steps, starts)
        # values below, not at, a start go further down
        return Levels.of(-steps[::-1], np.nextafter(-starts[::-1], -np.inf))
