"""Explicit loss-error-aware quantization, for one layer: a share of the weights at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.numerics.gptq import with_damping
from ptq.numerics.increments import Order, round_by_increments
from ptq.numerics.solutions import Solution, fitted
from ptq.rounders.base import Rounder, Task


class ElqRounder(Rounder, frozen=True, tag="elq"):
    """Half of the weights are rounded, then half of the rest, and the others make up for it.

    An analogue, not the method of the papers: see `ptq.numerics.increments.round_by_increments`.
    With four stages 50, 75, 87.5 and 100 % of the weights of each row are rounded, those first of
    which rounding costs least (``(w - Q(w))^2 / [H^-1]_jj``), or the largest as in INQ.

    Attributes:
        stages: how many shares there are.
        order: which weights are rounded first.
    """

    paper: ClassVar[str] = (
        "an analogue of Zhou et al., Explicit Loss-Error-Aware Quantization for Low-Bit Deep "
        "Neural Networks, CVPR 2018, and of Zhou et al., Incremental Network Quantization, ICLR "
        "2017, in closed form for one layer"
    )
    good_for: ClassVar[str] = (
        "a baseline of incremental rounding: about as good as gptq, for more time"
    )
    stages: Annotated[int, Meta(ge=1, le=16)] = 4
    order: Order = "loss"

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the codes, then these with scales and codes fitted to one another."""
        grid = task.nearest.grid
        codes = round_by_increments(
            task.w,
            task.moments,
            grid,
            damping=task.damping,
            stages=self.stages,
            order=self.order,
        )
        found = Solution(codes, grid)
        yield found
        yield fitted(task.w, found, with_damping(task.moments, task.damping), task.block)
