"""Weights to round, as the rounding methods get them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from ptq.numerics.gptq import Grid, output_errors
from ptq.numerics.projection import nearest_codes
from ptq.numerics.solutions import Solution
from ptq.rounders import Task

#: Nothing is bound to anything.
FREE = np.empty((0, 0), int)


def task(  # noqa: PLR0913 - what tests vary
    seed, *, groups=1, rows=3, columns=6, bits=3, block=None, damping=0.01, grid=None
):
    """Return weights, correlated inputs' sums, a grid with zero points, and the nearest codes.

    Args:
        grid: what to change in the grid, in its terms.
    """
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, columns, columns)) + 1.0
    x = rng.normal(size=(groups, 5 * columns, columns)) @ mixed
    w = rng.normal(size=(groups, rows, columns))
    top = (1 << bits) - 1
    scale = ((np.ptp(w, axis=2, keepdims=True) + 0.1) / top).astype(np.float32).astype(float)
    zero_point = np.clip(np.rint(-w.min(axis=2, keepdims=True) / scale), 0, top)
    on = Grid(scale, zero_point, 0, top, np.empty((0, columns), int), top)
    on = replace(on, **(grid or {}))
    nearest = Solution(nearest_codes(w, on), on)
    return Task(w, nearest, x.transpose(0, 2, 1) @ x, damping, block)


def with_levels(made, levels, *, free=False):
    """Return the same task on levels, which are codes of the steps of each row."""
    zero = np.zeros_like(made.nearest.grid.zero_point)
    shape = (*made.w.shape[:2], len(levels))
    every = np.broadcast_to(np.asarray(levels, float), shape)
    grid = replace(made.nearest.grid, zero_point=zero, qmin=-127, qmax=127, limit=128, levels=every)
    nearest = Solution(nearest_codes(made.w, grid), grid)
    return replace(made, nearest=nearest, free_levels=free)


def least_errors(made):
    """Return the least error of the first row of each group among codes near its weights."""
    grid = made.nearest.grid
    offsets = np.array(list(product([-1, 0, 1], repeat=made.w.shape[2])))
    codes = np.clip(made.nearest.codes[:, :1] + offsets, grid.qmin, grid.qmax)
    one = replace(grid, scale=grid.scale[:, :1], zero_point=grid.zero_point[:, :1])
    return output_errors(made.w[:, :1], codes, one, made.moments).min(axis=1)
