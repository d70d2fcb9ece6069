"""Optimal Brain Quantization: the weight whose rounding costs least comes next, row by row."""

from __future__ import annotations

import numpy as np

from ptq.numerics.arrays import F64
from ptq.numerics.gptq import Grid, with_damping
from ptq.numerics.levels import nearest_level

#: Inverses of rows that are held at once, in numbers: 32 MB.
_AT_ONCE = 1 << 22


def round_by_obq(w: F64, gram: F64, grid: Grid, *, damping: float) -> F64:
    """Return codes, shape of ``w``.

    In each row, the weight of least ``(w - Q(w))^2 / [H^-1]_jj`` is rounded, which is what
    rounding it costs once all others have made up for it; then they do, and its row and column
    leave the inverse. Weights more than half a step beyond the ends of the grid come first, the
    farthest one before the others: the longer they wait, the fewer are left to make up for them.

    Costs ``columns^3`` for each row.

    Reference: Frantar and Alistarh, "Optimal Brain Compression: A Framework for Accurate
    Post-Training Quantization and Pruning", NeurIPS 2022, section 5.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        gram: sums of products of inputs, shape ``(groups, columns, columns)``.
        grid: what the codes can be.
        damping: what is added to the diagonal, as a share of its mean; above 0.
    """
    groups, rows, columns = w.shape
    inverse = np.linalg.inv(with_damping(gram, damping))
    flat = (groups * rows, columns)
    scale, zero_point = (
        np.broadcast_to(p, w.shape).reshape(flat) for p in (grid.scale, grid.zero_point)
    )
    levels = None if grid.levels is None else grid.levels.reshape(groups * rows, -1)
    codes = np.empty(flat)
    chunk = max(1, _AT_ONCE // (columns * columns))
    for start in range(0, groups * rows, chunk):
        part = slice(start, start + chunk)
        of = np.arange(groups * rows)[part] // rows
        chosen = None if levels is None else levels[part]
        row_grid = Grid(
            scale[part], zero_point[part], grid.qmin, grid.qmax, grid.partners, grid.limit, chosen
        )
        codes[part] = _rounded(w.reshape(flat)[part], inverse[of], row_grid)
    return codes.reshape(w.shape)


def _rounded(w: F64, inverse: F64, grid: Grid) -> F64:
    """Return the codes of rows, each with an inverse of its own, which is used up."""
    rows, columns = w.shape
    rest, every = w.copy(), np.arange(rows)
    # an unrounded code is 0, which binds none; the last column is the partner of who has none
    codes = np.zeros((rows, columns + 1))
    waits = np.ones((rows, columns), bool)
    for _ in range(columns):
        steps = rest / grid.scale + grid.zero_point
        nearest, beyond = _nearest(steps, codes, grid)
        lost = rest - (nearest - grid.zero_point) * grid.scale
        diagonal = np.diagonal(inverse, axis1=1, axis2=2)
        # all that lie beyond the ends come before all that do not
        cost = np.where(beyond > 0, -beyond, lost**2 / np.where(waits, diagonal, 1.0))
        j = np.argmin(np.where(waits, cost, np.inf), axis=1)
        codes[every, j], waits[every, j] = nearest[every, j], False
        column = inverse[every, :, j]
        pivot = column[every, j]
        rest -= (lost[every, j] / pivot)[:, None] * column
        inverse -= column[:, :, None] * (column / pivot[:, None])[:, None, :]
    return codes[:, :columns]


def _nearest(steps: F64, codes: F64, grid: Grid) -> tuple[F64, F64]:
    """Return the codes next to steps, and by how much steps lie beyond half a step of the ends."""
    if grid.levels is not None:
        found = np.asarray(nearest_level(steps, grid.levels), np.float64)
        lo, hi = grid.levels[:, :1], grid.levels[:, -1:]
        half = np.diff(grid.levels, axis=1).max(axis=1, initial=0.0)[:, None] / 2
    else:
        lo, hi = _bounds(codes, grid)
        found, half = np.clip(np.rint(steps), lo, hi), 0.5
    beyond = np.maximum(lo - half - steps, steps - hi - half)
    return found, beyond


def _bounds(codes: F64, grid: Grid) -> tuple[F64, F64]:
    """Return the least and the largest code of each weight, by those of its partners."""
    shape = (len(codes), codes.shape[1] - 1)
    lo, hi = np.full(shape, float(grid.qmin)), np.full(shape, float(grid.qmax))
    for partners in grid.partners:
        other = codes[:, partners]
        lo, hi = np.maximum(lo, -grid.limit - other), np.minimum(hi, grid.limit - other)
    return lo, hi
