"""Loss-aware quantization: each weight counts by the square of what it is multiplied by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from ptq.numerics.gptq import with_damping
from ptq.numerics.laq import fit_diagonal
from ptq.numerics.projection import nearest_codes
from ptq.numerics.solutions import Solution
from ptq.rounders.base import Rounder, Task


class LaqRounder(Rounder, frozen=True, tag="laq"):
    """Scales and nearest codes with each weight counted by the mean square of its input.

    ``min sum_j d_j (w_j - alpha q_j)^2`` with ``d`` the diagonal of the sums of products: of three
    levels and of two it is the least there is, of more ``alpha = sum d w q / sum d q^2`` and ``q``
    next to ``w / alpha`` follow one another. See `ptq.numerics.laq.fit_diagonal`. With inputs that
    are all alike it is TWN's exact ternary weights, or binary weights (BWN).

    The paper has second moments of gradients in ``d``, of each weight, as training gathers them.
    """

    paper: ClassVar[str] = (
        "Hou et al., Loss-aware Binarization of Deep Networks, ICLR 2017; Hou and Kwok, Loss-aware "
        "Weight Quantization of Deep Networks, ICLR 2018, section 3"
    )
    good_for: ClassVar[str] = (
        "a baseline: hardly better than nearest, for inputs depend; gptq sees it"
    )

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield the nearest codes, then codes and scales by the diagonal."""
        grid = task.nearest.grid
        yield Solution(nearest_codes(task.w, grid), grid)
        if task.block is not None:
            damped = with_damping(task.moments, task.damping)
            counts = np.diagonal(damped, axis1=1, axis2=2)[:, None, :]
            yield fit_diagonal(task.w, counts, task.nearest, task.block)
