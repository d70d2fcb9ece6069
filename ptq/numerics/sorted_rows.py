"""Searches in many sorted rows at once."""

from __future__ import annotations

import numpy as np

from ptq.numerics.arrays import F32, F64, AnyArray


def count_below(rows: F64, bounds: F32 | F64, *, equal: bool = False) -> AnyArray:
    """Return how many numbers of each row are below bounds: ``searchsorted`` of all rows at once.

    Args:
        rows: shape ``(rows, n)``, each ascending.
        bounds: shape ``(rows, m)``, in any order.
        equal: whether numbers that equal a bound count as well.

    Returns:
        Shape ``(rows, m)``. It takes ``log2 n`` steps of that many numbers.
    """
    n = rows.shape[1]
    found = np.zeros(bounds.shape, np.intp)
    step = 1 << max(n.bit_length() - 1, 0)
    while step and n:
        probe = found + step
        values = np.take_along_axis(rows, np.minimum(probe, n) - 1, axis=1)
        below = values <= bounds if equal else values < bounds
        found = np.where(below & (probe <= n), probe, found)
        step >>= 1
    return found


def running_sums(rows: F64) -> F64:
    """Return the sums of the first 0, 1, ... n numbers of each row, shape ``(rows, n + 1)``."""
    return np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
