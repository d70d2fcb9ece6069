"""Codes of a weight by GPTQ, and these with scales and codes fitted to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ptq.numerics.arrays import F64
from ptq.numerics.descent import descend
from ptq.numerics.gptq import Grid, output_errors, round_by_gptq, with_damping
from ptq.numerics.refit import refit_scales

#: What to add to the diagonal: the less, the better on the data, and the worse on other data.
DAMPINGS = (0.01, 0.1)

#: How often scales are fitted to codes and codes to scales.
_ROUNDS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Codes of a stack of matrices, and what they mean.

    Attributes:
        codes: shape ``(groups, rows, columns)``.
        grid: its scale has that shape, or 1 in place of the columns.
    """

    codes: F64
    grid: Grid

    def errors(self, w: F64, moments: F64) -> F64:
        """Return the squared error of the output of each row, shape ``(groups, rows)``.

        Args:
            w: the weight.
            moments: sums of products of inputs, shape ``(groups, columns, columns)``.
        """
        return output_errors(w, self.codes, self.grid, moments)


def solutions(
    w: F64, moments: F64, grid: Grid, damping: float, block: int | None
) -> Iterator[Solution]:
    """Yield the codes of GPTQ, then these with scales and codes fitted to one another.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        moments: sums of products of inputs, shape ``(groups, columns, columns)``.
        grid: what the codes can be to begin with.
        damping: what is added to the diagonal, as a share of its mean; above 0.
        block: how many columns of a row share a scale; ``None`` if scales are to stay.
    """
    codes = round_by_gptq(w, moments, grid, damping=damping)
    yield Solution(codes, grid)
    yield fitted(w, Solution(codes, grid), with_damping(moments, damping), block)


def fitted(w: F64, start: Solution, damped: F64, block: int | None) -> Solution:
    """Return scales fitted to codes, and codes to scales one at a time, twice.

    The error of no row grows, by the damped sums.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        start: where it starts.
        damped: sums of products of inputs, damped (`with_damping`).
        block: how many columns of a row share a scale; ``None`` if scales are to stay.
    """
    codes, grid = start.codes, start.grid
    for _ in range(_ROUNDS):
        if block is not None:
            grid = replace(grid, scale=refit_scales(w, codes, damped, grid, block))
        codes = descend(w, codes, damped, grid)
    return Solution(codes, grid)
