"""Range from the smallest to the largest value."""

from __future__ import annotations

from typing import ClassVar

from ptq.calib.base import Range, Solver, data_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class MinMaxSolver(Solver, frozen=True, tag="minmax"):
    """Cover every value seen; nothing saturates, and one outlier sets the step."""

    paper: ClassVar[str] = (
        "Jacob et al., Quantization and Training of Neural Networks for Efficient "
        "Integer-Arithmetic-Only Inference, CVPR 2018"
    )
    good_for: ClassVar[str] = (
        "8 bits where outliers carry the meaning or values are bounded; not for few bits"
    )

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return ``min .. max``, with zero."""
        return data_range(stats)
