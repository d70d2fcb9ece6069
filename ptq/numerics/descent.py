"""Coordinate descent over codes: change one at a time for as long as the product changes less."""

from __future__ import annotations

import numpy as np

from ptq.numerics.arrays import F64
from ptq.numerics.gptq import Grid

#: After so many rounds over all columns there is little left to gain.
_SWEEPS = 4

#: Columns changed before what that does to all others is reckoned: one product for many.
_BLOCK = 128

#: By how much of a step a code must come nearer at least, for sums are rounded.
_SLACK = 2e-9


def descend(w: F64, codes: F64, gram: F64, grid: Grid, sweeps: int = _SWEEPS) -> F64:
    """Return codes of which the error of the output is at most that of the given ones.

    Each code in turn takes the value that is best while all others stay, which never makes the
    error larger.

    Reference: Wang et al., "Two-Step Quantization for Low-bit Neural Networks", CVPR 2018,
    section 3.3, where the codes are ternary. Departs from it by starting from other codes than 0.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        codes: where to start, within their bounds.
        gram: sums of products of inputs, damped, shape ``(groups, columns, columns)``; what is on
            the diagonal is above 0.
        grid: what the codes can be.
        sweeps: how often it goes over all columns at most.
    """
    groups, rows, columns = w.shape
    scale = np.broadcast_to(grid.scale, w.shape)
    # the last column is the partner of who has none
    found = np.concatenate([codes, np.zeros((groups, rows, 1))], axis=2)
    slope = (w - grid.values(codes)) @ gram
    for _ in range(sweeps):
        changed = False
        for start in range(0, columns, _BLOCK):
            end = min(start + _BLOCK, columns)
            near, moves = slope[:, :, start:end].copy(), np.zeros((groups, rows, end - start))
            for j in range(start, end):
                i = j - start
                step, now = scale[:, :, j], found[:, :, j]
                wanted = near[:, :, i] / (gram[:, j, j][:, None] * step)
                nearest = grid.nearest(now + wanted, found, np.full(groups, j))
                # half a step either way is as good; levels need not be a step apart
                stays = np.abs(now + wanted - nearest) >= np.abs(wanted) - _SLACK
                best = np.where(stays, now, nearest)
                moves[:, :, i] = (best - now) * step
                if moves[:, :, i].any():
                    near -= moves[:, :, i, None] * gram[:, None, j, start:end]
                    found[:, :, j], changed = best, True
            slope -= moves @ gram[:, start:end]
        if not changed:
            break
    return found[:, :, :columns]
