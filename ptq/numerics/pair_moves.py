"""Change two codes at once, where no change of a single one makes the product change less."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.gptq import Grid, code_bounds
from ptq.numerics.levels import nearest_index

#: What a move must gain at least, as a share of what a step of its first code costs: sums are
#: rounded.
_SLACK = 1e-9


def move_pairs(w: F64, codes: F64, gram: F64, grid: Grid, pairs: int) -> F64:
    """Return codes of which the error of the output is at most that of the given ones.

    Of two inputs that are alike, one weight can take what the other gives. The first code of each
    pair goes up or down by one, the other takes the value that is then best; the better of both
    moves is made in the rows where it lowers the error. The pairs of the most correlated inputs
    come first, each once.

    No paper has it: it is the remedy for the local minima of coordinate descent, of which one is
    in `tests`.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        codes: where to start, within their bounds.
        gram: sums of products of inputs, damped, shape ``(groups, columns, columns)``; what is on
            the diagonal is above 0.
        grid: what the codes can be.
        pairs: how many pairs to try for each column, on the average.
    """
    groups, rows, columns = w.shape
    every = np.arange(groups)
    scale = np.broadcast_to(grid.scale, w.shape)
    # the last column is the partner of who has none
    found = np.concatenate([codes, np.zeros((groups, rows, 1))], axis=2)
    slope = (w - grid.values(codes)) @ gram
    for i, j in _correlated(gram, pairs * columns):
        now = found[every, :, i], found[every, :, j]
        step = scale[every, :, i], scale[every, :, j]
        own, other, both = (gram[every, a, b][:, None] for a, b in ((i, i), (j, j), (i, j)))
        least = _SLACK * own * step[0] ** 2
        gained = np.zeros((groups, rows))
        best = now
        for change in (1, -1):
            first = _beside(found, grid, i, change)
            moved = (first - now[0]) * step[0]
            rest = slope[every, :, j] - both * moved
            found[every, :, i] = first
            second = grid.nearest(now[1] + rest / (other * step[1]), found, j)
            found[every, :, i] = now[0]
            along = (second - now[1]) * step[1]
            gain = 2 * slope[every, :, i] * moved - own * moved**2 + 2 * rest * along
            gain -= other * along**2
            better = gain > np.maximum(gained, least)
            gained = np.where(better, gain, gained)
            best = np.where(better, first, best[0]), np.where(better, second, best[1])
        g, r = np.nonzero(gained)
        if len(g):
            moved, along = ((best[k] - now[k]) * step[k] for k in (0, 1))
            slope[g, r] -= moved[g, r, None] * gram[g, i[g]] + along[g, r, None] * gram[g, j[g]]
            found[every, :, i], found[every, :, j] = best
    return found[:, :, :columns]


def _beside(found: F64, grid: Grid, column: AnyArray, change: int) -> F64:
    """Return the code that follows or precedes each of one column, or the same at the end."""
    now = found[np.arange(len(found)), :, column]
    if grid.levels is not None:
        index = nearest_index(now[:, :, None], grid.levels) + change
        index = np.clip(index, 0, grid.levels.shape[2] - 1)
        return np.asarray(np.take_along_axis(grid.levels, index, axis=2)[:, :, 0])
    lo, hi = code_bounds(found, grid, column)
    return np.asarray(np.clip(now + change, lo, hi))


def _correlated(gram: F64, most: int) -> Iterator[tuple[AnyArray, AnyArray]]:
    """Yield for each group the columns of a pair, the most correlated ones first."""
    columns = gram.shape[1]
    first, second = np.triu_indices(columns, 1)
    size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    alike = np.abs(gram[:, first, second]) / (size[:, first] * size[:, second])
    order = np.argsort(-alike, axis=1, kind="stable")[:, :most]
    for place in order.T:
        yield first[place], second[place]
