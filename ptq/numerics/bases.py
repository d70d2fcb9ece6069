"""Levels that are sums of a few bases, fitted to values: levels and bases by turns."""

from __future__ import annotations

import numpy as np

from ptq.numerics.arrays import F32, F64
from ptq.numerics.ordered import Ordered

#: A base that no value tells anything about stays where it is: so much of its old value, for each
#: value of the row, is added to the equations. What is told of is the same to about 1e-6.
_RIDGE = 1e-6

#: Rows that gain less than this share of their error in a step are done.
_GAIN = 1e-5

#: How many steps are taken at most.
STEPS = 50


def signs(count: int) -> F64:
    """Return all signs that ``count`` bases can have, shape ``(2^count, count)``."""
    codes = np.arange(1 << count)[:, None]
    return np.asarray((codes >> np.arange(count)[::-1] & 1) * 2.0 - 1)


def residuals(rows: F32, count: int) -> F64:
    """Return the mean magnitudes of what the signs of the bases before leave of each row.

    Li et al., Performance Guaranteed Network Acceleration via High-Order Residual Quantization,
    ICCV 2017: ``alpha_k = mean |R_{k-1}|`` and ``R_k = R_{k-1} - alpha_k sign(R_{k-1})``.

    Args:
        rows: shape ``(rows, values)``.
        count: how many.

    Returns:
        Shape ``(rows, count)``.
    """
    rest = rows.astype(np.float64, order="C")
    found = np.zeros((len(rows), count))
    for k in range(count):
        found[:, k] = np.abs(rest).sum(axis=1) / max(rows.shape[1], 1)
        rest -= np.where(rest >= 0, found[:, k, None], -found[:, k, None])
    return found


def levels_of(patterns: F64, bases: F64) -> F64:
    """Return the levels of each row in ascending order.

    Args:
        patterns: what each base counts in each level, shape ``(levels, bases)``.
        bases: shape ``(rows, bases)``.

    Returns:
        Shape ``(rows, levels)``.
    """
    return np.sort((patterns * bases[:, None, :]).sum(axis=2), axis=1)


def fitted(values: Ordered, patterns: F64, bases: F64, steps: int = STEPS) -> tuple[F64, F64]:
    """Return bases of less squared error, and the error: on the way to the minimum they are near.

    By turns, each value takes the nearest level, and the bases become those of least squares. No
    step increases the error.

    Zhang et al., LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural
    Networks, ECCV 2018, algorithm 1 (quantization error minimization).

    Args:
        values: what the levels are for.
        patterns: what each base counts in each level, shape ``(levels, bases)``.
        bases: where to start, shape ``(rows, bases)``.
        steps: how many at most. Rows that gain little end earlier.

    Returns:
        Bases, in the shape of ``bases``; sums of squared errors of rows, shape ``(rows,)``.
    """
    best = bases.copy()
    counts, sums, least = _taken(values, patterns, best)
    active = np.flatnonzero(least > 0)
    rows, counts, sums = values.some(active), counts[active], sums[active]
    for _ in range(steps):
        if not active.size:
            break
        tried = _least_squares(rows, patterns, best[active], counts, sums)
        counts, sums, errors = _taken(rows, patterns, tried)
        better = errors < least[active]
        on = errors < least[active] * (1 - _GAIN)
        best[active[better]], least[active[better]] = tried[better], errors[better]
        if not on.all():
            active, counts, sums = active[on], counts[on], sums[on]
            rows = values.some(active)
    return best, least


def _taken(values: Ordered, patterns: F64, bases: F64) -> tuple[F64, F64, F64]:
    """Return how many values take each pattern, what they sum up to, and the errors of rows."""
    levels = (patterns * bases[:, None, :]).sum(axis=2)
    order = np.argsort(levels, axis=1, kind="stable")
    ascending = np.take_along_axis(levels, order, axis=1)
    counts, sums = values.nearest(ascending)
    errors = values.error_of(ascending, counts, sums)
    rank = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(counts, rank, 1), np.take_along_axis(sums, rank, 1), errors


def _least_squares(values: Ordered, patterns: F64, bases: F64, counts: F64, sums: F64) -> F64:
    """Return the bases of least squared error where values keep the patterns that they have."""
    ridge = _RIDGE * values.size
    products = patterns[:, :, None] * patterns[:, None, :]
    # not by BLAS, of which the last bit of a row depends on how many rows there are
    squares = np.einsum("rl,lij->rij", counts, products) + ridge * np.eye(bases.shape[1])
    wanted = np.einsum("rl,li->ri", sums, patterns) + ridge * bases
    return np.asarray(np.linalg.solve(squares, wanted[:, :, None])[:, :, 0])
