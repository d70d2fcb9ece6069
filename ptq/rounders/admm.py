"""ADMM: weights that are free and codes that are not, drawn together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.numerics.admm import Eigenbasis, Schedule, round_by_admm
from ptq.numerics.gptq import with_damping
from ptq.numerics.solutions import Solution, fitted
from ptq.rounders.base import Rounder, Task


class AdmmRounder(Rounder, frozen=True, tag="admm"):
    """Free weights and codes in turns, drawn together by a force that grows.

    See `ptq.numerics.admm.round_by_admm`: ``W = (W0 H + rho (G - L)) (H + rho I)^-1``, ``G`` the
    codes next to ``W + L``, ``L += W - G``, ``rho`` 6 % more each time, and of all ``G`` the best
    of each row.

    Attributes:
        iterations: how many.
        force: the first force, as a share of the mean square of the inputs.
        growth: by how much it grows each time, as a factor.
    """

    paper: ClassVar[str] = (
        "Leng et al., Extremely Low Bit Neural Network: Squeeze the Last Bit Out with ADMM, "
        "AAAI 2018"
    )
    good_for: ClassVar[str] = (
        "2 to 4 bits: of uniform codes the best layer by layer, for three times gptq's time"
    )
    iterations: Annotated[int, Meta(ge=1)] = 60
    force: Annotated[float, Meta(gt=0)] = 0.1
    growth: Annotated[float, Meta(gt=1, le=2)] = 1.06

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the codes at the scales that there are, then with scales of their own.

        The latter are then fitted to one another, as after GPTQ.
        """
        damped = with_damping(task.moments, task.damping)
        basis = Eigenbasis.of(damped)
        how = Schedule(self.iterations, self.force, self.growth)
        found = round_by_admm(task.w, basis, task.nearest, None, how)
        yield found
        if task.block is not None:
            found = round_by_admm(task.w, basis, task.nearest, task.block, how)
        yield fitted(task.w, found, damped, task.block)
