"""Coordinate descent: change one code at a time, or two, for as long as it helps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from ptq.numerics.descent import descend
from ptq.numerics.gptq import round_by_gptq, with_damping
from ptq.numerics.pair_moves import move_pairs
from ptq.numerics.solutions import Solution, fitted
from ptq.rounders.base import Rounder, Task


class CdRounder(Rounder, frozen=True, tag="cd"):
    """Codes one at a time, each the best while all others stay, then pairs of them.

    The slope of the error is ``G = (w - Q(w)) H``; code ``j`` goes to the one next to
    ``code + G_j / (H_jj s)``, and ``G`` loses ``H_j`` times what it went. It starts from the
    nearest codes, or from those of GPTQ.

    The paper has ternary codes. Departs from it by moving pairs of codes of correlated inputs
    afterwards, which leaves some of the minima that single codes cannot leave.

    Attributes:
        start: the codes it starts from.
        sweeps: how often it goes over all inputs at most.
        pairs: how many pairs of inputs it moves together, for each input; 0 moves none.
    """

    paper: ClassVar[str] = (
        "Wang et al., Two-Step Quantization for Low-bit Neural Networks, CVPR 2018, section 3.3"
    )
    good_for: ClassVar[str] = (
        "2 to 4 bits: somewhat better than gptq, for twice its time, by moving pairs of codes"
    )
    start: Literal["nearest", "gptq"] = "nearest"
    sweeps: Annotated[int, Meta(ge=1)] = 4
    pairs: Annotated[int, Meta(ge=0)] = 2

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the codes at the scales that there are, then both fitted to one another."""
        w, grid = task.w, task.nearest.grid
        damped = with_damping(task.moments, task.damping)
        codes = task.nearest.codes
        if self.start == "gptq":
            codes = round_by_gptq(w, task.moments, grid, damping=task.damping)
        codes = descend(w, codes, damped, grid, self.sweeps)
        if self.pairs:
            codes = move_pairs(w, codes, damped, grid, self.pairs)
            codes = descend(w, codes, damped, grid, self.sweeps)
        found = Solution(codes, grid)
        yield found
        yield fitted(w, found, damped, task.block)
