"""Levels of a codebook in closed form, of which the output changes least."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.descent import descend
from ptq.numerics.levels import nearest_index, snapped
from ptq.numerics.qtype import INT8_NARROW
from ptq.numerics.solutions import Solution

#: Rounds of Lloyd's algorithm at most; few levels move after so many.
_LLOYD = 30

#: What a level counts that no weight has.
_LITTLE = 1e-3

#: Numbers of products of rows that are held at once: 32 MB.
_AT_ONCE = 1 << 22


def lloyd(w: F64, levels: F64, counts: F64) -> F64:
    """Return the levels of weighted k-means, each weight counted by the square of its input.

    Each weight goes to the level next to it, each level to the mean of its weights. The error
    ``sum d (w - c)^2`` of no row grows. A level of 0 stays, and one that no weight is next to.

    Reference: Han et al., "Deep Compression", ICLR 2016, section 3, where all count alike; the
    weighting is that of Choi et al., "Towards the Limit of Network Quantization", ICLR 2017, by
    the second derivatives of the error, here of the layer's output.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        levels: where they start, shape ``(groups, rows, levels)``, ascending.
        counts: ``d``, shape ``(groups, 1, columns)``.
    """
    found = levels.copy()
    weights = np.broadcast_to(counts, w.shape)
    old = None
    for _ in range(_LLOYD):
        index = nearest_index(w, found)
        if old is not None and np.array_equal(index, old):
            break
        old = index
        total, along = (level_sums(v, index, levels.shape[2]) for v in (weights, weights * w))
        moves = (total > 0) & (levels != 0)
        # a mean lies among the weights that are next to its level: levels stay in order
        found = np.where(moves, along / np.where(total > 0, total, 1.0), found)
    return found


def refit_levels(w: F64, index: AnyArray, damped: F64, levels: F64) -> F64:
    """Return the levels of least error of the output, the weights keeping theirs; not in order.

    The output is linear in the levels: ``c = (A^T H A)^-1 A^T H w`` for each row, ``A`` telling
    which weight has which level. A level of 0 stays, for what is 0 shall be, and one that no
    weight has. The error of no row grows.

    Costs ``columns^2 * levels`` for each row.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        index: of the level of each weight, likewise.
        damped: sums of products of inputs, damped, shape ``(groups, columns, columns)``.
        levels: as they are, shape ``(groups, rows, levels)``.
    """
    columns, count = w.shape[2], levels.shape[2]
    found = levels.copy()
    chunk = max(1, _AT_ONCE // (columns * count))
    for g in range(len(w)):
        for start in range(0, w.shape[1], chunk):
            part = slice(start, start + chunk)
            found[g, part] = _solved(w[g, part], index[g, part], damped[g], levels[g, part])
    return found


def _solved(w: F64, index: AnyArray, damped: F64, levels: F64) -> F64:
    """Return the levels of rows of one group."""
    has = (index[:, None, :] == np.arange(levels.shape[1])[:, None]).astype(np.float64)
    reach = has @ damped
    products = reach @ has.transpose(0, 2, 1)
    wanted = np.einsum("rlc,rc->rl", reach, w)
    stays = (levels == 0) | ~has.any(axis=2)
    products[stays] = 0.0
    products.transpose(0, 2, 1)[stays] = 0.0
    row, level = np.nonzero(stays)
    products[row, level, level] = 1.0
    wanted = np.where(stays, levels, wanted)
    return np.asarray(np.linalg.solve(products, wanted[:, :, None])[:, :, 0])


def level_sums(values: F64, index: AnyArray, levels: int) -> F64:
    """Return the sums of the values of each level, shape ``(groups, rows, levels)``."""
    flat = index.reshape(-1, index.shape[2])
    place = flat + levels * np.arange(len(flat))[:, None]
    sums = np.bincount(place.ravel(), np.ravel(values), len(flat) * levels)
    return np.asarray(sums.reshape(*index.shape[:2], levels), np.float64)


def refit_codebook(w: F64, start: Solution, damped: F64, rounds: int) -> Solution:
    """Return levels fitted to codes and codes to levels, in turns; levels are no integers then.

    The damped error of no row grows.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        start: codes that are levels of their grid.
        damped: sums of products of inputs, damped, shape ``(groups, columns, columns)``.
        rounds: how many turns there are; a last fit of the levels follows.
    """
    found = start
    for _ in range(rounds):
        found = _with_levels(w, found, damped)
        found = Solution(descend(w, found.codes, damped, found.grid), found.grid)
    return _with_levels(w, found, damped)


def _with_levels(w: F64, found: Solution, damped: F64) -> Solution:
    """Return the same choice of levels with the levels of least error."""
    grid = found.grid
    assert grid.levels is not None
    index = nearest_index(found.codes, grid.levels)
    levels = refit_levels(w / grid.scale, index, damped, grid.levels)
    codes = np.take_along_axis(levels, index, axis=2)
    return Solution(codes, replace(grid, levels=np.sort(levels, axis=2)))


def integer_levels(found: Solution) -> Solution:
    """Return levels and codes as integers, at the scales with which those are nearest.

    Where kernels saturate (the grid has partners), codes are within half the limit, so that any
    two fit.
    """
    grid = found.grid
    assert grid.levels is not None
    rows = grid.levels.reshape(-1, grid.levels.shape[2])
    index = nearest_index(found.codes, grid.levels)
    counts = level_sums(np.ones(index.shape), index, rows.shape[1]).reshape(rows.shape)
    scales = np.broadcast_to(grid.scale, (*grid.levels.shape[:2], 1)).reshape(-1, 1)
    most = grid.limit // 2 if len(grid.partners) else INT8_NARROW.qmax
    scale, codes = snapped(rows * scales, counts + _LITTLE, most)
    levels = codes.reshape(grid.levels.shape).astype(np.float64)
    step = scale.reshape(*grid.levels.shape[:2], 1).astype(np.float64)
    taken = np.take_along_axis(levels, index, axis=2)
    return Solution(taken, replace(grid, levels=levels, scale=step))
