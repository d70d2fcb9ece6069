"""Range of least quantization error in an L_p norm."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.least_error import least_error_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class LpSolver(Solver, frozen=True, tag="lp"):
    """Least sum of the errors to the power of `norm`: the larger, the less is clipped.

    A norm of 2 is `mse`. The ranges are searched as there.

    Attributes:
        norm: the power; above 2, values that are clipped count for more than those that are
            rounded.
        factor: what both ends are then multiplied by, within the data's extremes: what `lapq`
            finds for single tensors.
    """

    paper: ClassVar[str] = (
        "Nahshan et al., Loss Aware Post-training Quantization, Machine Learning 2021, section 4.1"
    )
    good_for: ClassVar[str] = "between mse and minmax; what lapq chooses among"

    norm: Annotated[float, Meta(ge=1.0, le=8.0)] = 2.4
    factor: Annotated[float, Meta(ge=0.05, le=8.0)] = 1.0

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of least error found, times the factor."""
        found = least_error_range(stats, qtype, symmetric=symmetric, norm=self.norm)
        return self.scaled(found, stats)

    def scaled(self, found: Range, stats: TensorStats) -> Range:
        """Return a range times the factor, within the data's extremes."""
        if self.factor == 1.0:
            return found
        return data_range(stats).clipped(found.lo * self.factor, found.hi * self.factor)
