"""The range of WRPN activations, which is that of DoReFa."""

from __future__ import annotations

from typing import ClassVar

from ptq.calib.base import Range, Solver
from ptq.calib.dorefa import unit_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class WrpnSolver(Solver, frozen=True, tag="wrpn"):
    """Clip to ``0 .. 1`` as `dorefa` does, of which it is the same; a baseline.

    ``round((2^k - 1) clip(a, 0, 1)) / (2^k - 1)``. What makes the paper's networks right is that
    their layers are two or three times as wide and trained, and neither can be done here.
    """

    paper: ClassVar[str] = (
        "Mishra et al., WRPN: Wide Reduced-Precision Networks, ICLR 2018, section 3 (activations)"
    )
    good_for: ClassVar[str] = "a baseline; networks that were trained with activations in 0 .. 1"
    two_sided: ClassVar[str] = "clipped to -1 .. 1"

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return ``0 .. 1`` or ``-1 .. 1``, no wider than the data."""
        return unit_range(stats)
