"""Range of a fixed share of the extremes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.calib.base import Range, Solver, data_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class ScaleSolver(Solver, frozen=True, tag="scale"):
    """Cover ``shrink`` times the extremes: a baseline, ruinous where values gather at the ends.

    Measured on a ReLU6-like tensor at 8 bits: 54 dB become 19 dB.

    Attributes:
        shrink: the share of both ends that is kept.
    """

    paper: ClassVar[str] = "folklore: threshold = k * max"
    good_for: ClassVar[str] = "a baseline; ruins tensors that gather at their ends, as of Relu6"

    shrink: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.8

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return ``shrink * min .. shrink * max``; symmetric, ``shrink * max|x|`` either way."""
        data = data_range(stats)
        found = Range(self.shrink * data.lo, self.shrink * data.hi)
        return data.clipped(-found.max_abs, found.max_abs) if symmetric else found
