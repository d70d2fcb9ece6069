"""Scales of blocks in closed form: of given codes, the ones with which the output changes least."""

from __future__ import annotations

import numpy as np

from ptq.numerics.arrays import F32_TINY, F64
from ptq.numerics.gptq import Grid

#: By what factor a scale may change at most: beyond it, the inputs say next to nothing about it.
_MOST = 2.0

#: Equations of rows that are solved at once, in numbers: 32 MB.
_AT_ONCE = 1 << 22


def refit_scales(w: F64, codes: F64, gram: F64, grid: Grid, block: int) -> F64:
    """Return scales, shape of ``w``, of the least error of each row among those that are allowed.

    The output is linear in the scales, so that they solve least squares: one unknown for each
    block of a row. A row keeps its scales where one would change by more than twice or by less
    than half, or would not be a normal float32, and a block keeps its own where all its codes are
    the zero point.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        codes: likewise.
        gram: sums of products of inputs, damped, shape ``(groups, columns, columns)``.
        grid: what the codes mean now; the scale is the same within each block.
        block: how many columns share a scale; the last one may have fewer.
    """
    groups, rows, columns = w.shape
    count = -(-columns // block)
    scale = np.broadcast_to(grid.scale, w.shape)
    found = np.array(scale)
    chunk = max(1, _AT_ONCE // (count * count))
    for g in range(groups):
        for start in range(0, rows, chunk):
            rows_of = slice(start, start + chunk)
            steps = (codes - grid.zero_point)[g, rows_of]
            old = scale[g, rows_of, ::block]
            new = _solved(w[g, rows_of], steps, gram[g], old, block)
            found[g, rows_of] = np.repeat(new, block, axis=1)[:, :columns]
    return found


def _solved(w: F64, steps: F64, gram: F64, old: F64, block: int) -> F64:
    """Return the scales of rows, shape ``(rows, blocks)``."""
    rows, columns = w.shape
    count = old.shape[1]
    filled = ((0, 0), (0, count * block - columns))
    pieces = np.pad(steps, filled).reshape(rows, count, block)
    products = np.empty((rows, count, count))
    wanted = np.empty((rows, count))
    for b in range(count):
        place = slice(b * block, min((b + 1) * block, columns))
        reach = steps[:, place] @ gram[place]
        wanted[:, b] = np.einsum("rc,rc->r", reach, w)
        products[:, :, b] = np.einsum(
            "rbc,rbc->rb", np.pad(reach, filled).reshape(rows, count, block), pieces
        )
    empty = ~pieces.any(axis=2)
    # of an empty block all products are 0: it keeps its scale
    products[:, np.arange(count), np.arange(count)] += empty
    found = np.linalg.solve(products, np.where(empty, old, wanted)[:, :, None])[:, :, 0]
    found = found.astype(np.float32).astype(np.float64)
    least = np.maximum(old / _MOST, F32_TINY)
    fits = np.all((found <= _MOST * old) & (found >= least), axis=1)
    return np.where(fits[:, None], found, old)
