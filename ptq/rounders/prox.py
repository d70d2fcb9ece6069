"""ProxQuant: weights drawn to the codes next to them, more with each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.numerics.admm import Eigenbasis
from ptq.numerics.gptq import with_damping
from ptq.numerics.prox import Norm, round_by_prox
from ptq.numerics.solutions import Solution, fitted
from ptq.rounders.base import Rounder, Task


class ProxRounder(Rounder, frozen=True, tag="prox"):
    """Weights go down the slope of the error, and a growing share of the way to their codes.

    See `ptq.numerics.prox.round_by_prox`: ``x = a x + (1 - a) Q(x)``, ``a`` from 1 to 0.

    Attributes:
        steps: how many.
        force: what is added to the sums of products that a step is divided by, as a share of the
            mean square of the inputs.
        norm: ``l2`` draws in proportion to the distance, ``l1`` by the same length.
    """

    paper: ClassVar[str] = (
        "Bai et al., ProxQuant: Quantized Neural Networks via Proximal Operators, ICLR 2019, "
        "algorithm 1"
    )
    good_for: ClassVar[str] = "a baseline: about as good as gptq, for more time"
    steps: Annotated[int, Meta(ge=1)] = 50
    force: Annotated[float, Meta(gt=0)] = 0.3
    norm: Norm = "l2"

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the best codes of the path, then these with scales and codes fitted together."""
        damped = with_damping(task.moments, task.damping)
        basis = Eigenbasis.of(damped)
        found = round_by_prox(task.w, basis, task.nearest, self.steps, self.force, self.norm)
        yield found
        yield fitted(task.w, found, damped, task.block)
