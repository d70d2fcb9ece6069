"""Range from moving averages of the extremes of each batch."""

from __future__ import annotations

from typing import ClassVar

from ptq.calib.base import Range, Solver, data_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class EmaSolver(Solver, frozen=True, tag="ema"):
    """Cover the moving averages of each batch's minimum and maximum.

    The decay is that of the statistics, for it must be known while they are collected. The
    result depends on the order of the batches.
    """

    paper: ClassVar[str] = (
        "Li et al., Fully Quantized Network for Object Detection, CVPR 2019, section 3.2"
    )
    good_for: ClassVar[str] = (
        "many shuffled samples, as in training (FQN); with few it is the range of the first"
    )

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the averages, with zero; symmetric, the larger of them either way."""
        data = data_range(stats)
        # An average lies within the extremes, but for rounding.
        found = data.clipped(stats.ema.lo, stats.ema.hi)
        return data.clipped(-found.max_abs, found.max_abs) if symmetric else found
