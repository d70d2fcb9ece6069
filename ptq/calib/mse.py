"""Range of least squared quantization error."""

from __future__ import annotations

from typing import ClassVar

from ptq.calib.base import Range, Solver
from ptq.calib.least_error import least_error_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class MseSolver(Solver, frozen=True, tag="mse"):
    """Least squared error between the values and their quantized form; never worse than minmax.

    Both ends shrink by a common factor first; on an asymmetric grid, a tensor of both signs then
    has each end tried on its own. A grid of factors is refined around its best point. Every
    candidate is judged with the scale and zero point that it would get.
    """

    paper: ClassVar[str] = (
        "Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, "
        "ICCV workshops 2019, section 3"
    )
    good_for: ClassVar[str] = (
        "fewer than 8 bits, the default there, and transformers at 8; never far from the best"
    )

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of least error found; of equals, the widest."""
        return least_error_range(stats, qtype, symmetric=symmetric)
