"""Two-step quantization, its second step: a scale in closed form, then each code in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.descent import descend
from ptq.numerics.gptq import with_damping
from ptq.numerics.refit import refit_scales
from ptq.numerics.solutions import Solution
from ptq.rounders.base import Rounder, Task


class TsqRounder(Rounder, frozen=True, tag="tsq"):
    """The scale of each row in closed form, and its codes one at a time, in turns.

    ``min |y - alpha X q|^2`` over ``alpha = y^T X q / |X q|^2`` and over one code of ``q`` at a
    time, until nothing changes. What ``X`` holds is read in the quantized
    network, so that it is ``Q(W) Q(X)`` that is fitted.

    Departs from the paper: any grid, not ternary codes alone; it starts from the nearest codes.
    Its objective has the activation quantizer around the product, ``|y - Q(alpha X q)|^2``, by an
    auxiliary variable for each output. Sums of products do not hold single outputs: the quantizer
    counts as noise of the same size whatever the weights, which leaves the least squares above.
    The first step, sparse activations, is a matter of the ranges (``--calib``).

    Attributes:
        rounds: how many turns there are at most.
    """

    paper: ClassVar[str] = (
        "Wang et al., Two-Step Quantization for Low-bit Neural Networks, CVPR 2018, section 3.3"
    )
    good_for: ClassVar[str] = (
        "low bits as the paper has them: about as good as gptq, and cd goes further"
    )
    rounds: Annotated[int, Meta(ge=1)] = 10

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the codes at the scales that there are, then in turns with the scales."""
        damped = with_damping(task.moments, task.damping)
        grid, start = task.nearest.grid, task.nearest.codes
        yield Solution(descend(task.w, start, damped, grid), grid)
        if task.block is None:
            return
        codes = start
        for _ in range(self.rounds):
            scale = refit_scales(task.w, codes, damped, grid, task.block)
            grid = replace(grid, scale=scale)
            found = descend(task.w, codes, damped, grid, sweeps=1)
            if np.array_equal(found, codes):
                break
            codes = found
        yield Solution(codes, grid)
