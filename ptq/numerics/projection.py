"""The codes next to all weights of a matrix at once."""

from __future__ import annotations

import numpy as np

from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.gptq import Grid
from ptq.numerics.levels import nearest_level


def nearest_codes(values: F64, grid: Grid) -> F64:
    """Return the codes next to values; where two partners are too large, both shrink alike.

    Codes that are within their bounds already come back as they are.

    Args:
        values: what codes are to stand for, shape ``(groups, rows, columns)``.
        grid: what the codes can be.
    """
    steps = values / grid.scale + grid.zero_point
    if grid.levels is not None:
        return np.asarray(nearest_level(steps, grid.levels), np.float64)
    codes = np.clip(np.rint(steps), grid.qmin, grid.qmax)
    for partners in grid.partners:
        _shrink(codes, partners, grid.limit)
    return np.asarray(codes)


def _shrink(codes: F64, partners: AnyArray, limit: int) -> None:
    """Take what pairs have too much from both of their codes, in place.

    Magnitudes only fall, so that what fits in one order still does after the next.
    """
    first = np.flatnonzero(partners > np.arange(len(partners)))
    second = partners[first]
    sums = codes[:, :, first] + codes[:, :, second]
    over = np.maximum(np.abs(sums) - limit, 0.0)
    codes[:, :, first] -= np.sign(sums) * np.ceil(over / 2)
    codes[:, :, second] -= np.sign(sums) * np.floor(over / 2)
