"""Optimal Brain Quantization: GPTQ in the order that each row would choose for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.numerics.gptq import round_by_gptq, with_damping
from ptq.numerics.obq import round_by_obq
from ptq.numerics.solutions import Solution, fitted
from ptq.rounders.base import Rounder, Task


class ObqRounder(Rounder, frozen=True, tag="obq"):
    """The weight whose rounding costs least comes next, and the others make up for it.

    Next is the ``j`` of least ``(w_j - Q(w_j))^2 / [H^-1]_jj``, in each row for itself, and the
    inverse is downdated exactly. That takes the third power of the inputs for each row, so that
    layers with more than ``most`` inputs for each output are rounded in the order of GPTQ.

    Attributes:
        most: inputs up to which each row has an order of its own; those of a group.
    """

    paper: ClassVar[str] = (
        "Frantar and Alistarh, Optimal Brain Compression: A Framework for Accurate Post-Training "
        "Quantization and Pruning, NeurIPS 2022, section 5"
    )
    good_for: ClassVar[str] = "depthwise and small layers: somewhat better than gptq at 2 to 4 bits"
    most: Annotated[int, Meta(ge=1, le=512)] = 64

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the codes, then these with scales and codes fitted to one another."""
        grid = task.nearest.grid
        method = round_by_obq if task.w.shape[2] <= self.most else round_by_gptq
        found = Solution(method(task.w, task.moments, grid, damping=task.damping), grid)
        yield found
        yield fitted(task.w, found, with_damping(task.moments, task.damping), task.block)
