"""Scales of blocks with which weights are nearest to what they stand for, each one by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptq.numerics.arrays import F32_TINY, F64
from ptq.numerics.gptq import Grid


def scaled(grid: Grid, values: F64, codes: F64, counts: F64, block: int) -> Grid:
    """Return the grid with the scales of least ``sum d (v - alpha q)^2`` for each block of a row.

    It is ``alpha = sum d q v / sum d q^2``, ``q`` being codes without the zero point. A block
    keeps its scale where that is not above 0, or all codes are the zero point.

    Args:
        grid: the grid as it is; its scale is the same within each block.
        values: what codes are to stand for, shape ``(groups, rows, columns)``.
        codes: likewise.
        counts: ``d``, how much each weight counts, above 0; it broadcasts against these.
        block: how many columns of a row share a scale; the last one may have fewer.
    """
    steps = codes - grid.zero_point
    weighed = np.broadcast_to(counts, values.shape) * steps
    starts = np.arange(0, values.shape[2], block)
    along = np.add.reduceat(weighed * values, starts, axis=2)
    size = np.add.reduceat(weighed * steps, starts, axis=2)
    found = along / np.where(size > 0, size, 1.0)
    found = found.astype(np.float32).astype(np.float64)
    spread = np.repeat(found, block, axis=2)[:, :, : values.shape[2]]
    old = np.broadcast_to(grid.scale, values.shape)
    return replace(grid, scale=np.where(spread >= F32_TINY, spread, old))
