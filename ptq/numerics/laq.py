"""Codes and scales of least error where each weight counts by the square of its input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptq.numerics.arrays import F32_TINY, F64, AnyArray
from ptq.numerics.diagonal import scaled
from ptq.numerics.gptq import Grid
from ptq.numerics.projection import nearest_codes
from ptq.numerics.solutions import Solution

#: How often scales and codes follow one another at most, and the change that counts as none.
_ROUNDS, _ENOUGH = 10, 1e-6

#: How many levels binary and ternary weights have.
_BINARY, _TERNARY = 2, 3


def fit_diagonal(w: F64, counts: F64, start: Solution, block: int) -> Solution:
    """Return codes and scales of least ``sum d (w - alpha q)^2`` for each block of a row.

    Of three levels, minus and plus one and 0, and of two, minus and plus one, it is the least
    there is: ternary weights keep the largest so many, of all numbers the one of most
    ``(sum d |w|)^2 / sum d``; binary ones have ``alpha = sum d |w| / sum d``. Of others, scales
    and nearest codes follow one another, which never makes the error larger.

    Reference: Hou et al., "Loss-aware Binarization of Deep Networks", ICLR 2017;
    Hou and Kwok, "Loss-aware Weight Quantization of Deep Networks", ICLR 2018,
    section 3. Departs from them in what weights count: the square of the input, and not
    second moments of gradients in training.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        counts: ``d``, above 0, shape ``(groups, 1, columns)``.
        start: the nearest codes.
        block: how many columns of a row share a scale.
    """
    one = _sign_step(start.grid)
    if one is None:
        return _alternated(w, counts, start, block)
    codes = np.empty_like(w)
    scale = np.array(np.broadcast_to(start.grid.scale, w.shape))
    keep_all = start.grid.levels is not None and start.grid.levels.shape[2] == _BINARY
    for first in range(0, w.shape[2], block):
        part = slice(first, first + block)
        kept, alpha = _kept(w[:, :, part], counts[:, :, part], keep_all=keep_all)
        codes[:, :, part] = np.where(kept, np.where(w[:, :, part] < 0, -one, one), 0.0)
        alpha = (alpha / one).astype(np.float32).astype(np.float64)
        scale[:, :, part] = np.where(alpha >= F32_TINY, alpha, scale[:, :, part])
    return Solution(codes, replace(start.grid, scale=scale))


def _sign_step(grid: Grid) -> F64 | None:
    """Return the code of plus one, shape ``(groups, rows, 1)``, if codes are signs, and maybe 0."""
    if grid.levels is None:
        signs = (grid.qmin, grid.qmax) == (-1, 1) and not np.any(grid.zero_point)
        return np.ones((1, 1, 1)) if signs else None
    count = grid.levels.shape[2]
    one = grid.levels[:, :, -1:]
    if count not in (_BINARY, _TERNARY) or np.any(one <= 0):
        return None
    return one if np.array_equal(grid.levels, one * np.linspace(-1, 1, count)) else None


def _kept(w: F64, counts: F64, *, keep_all: bool) -> tuple[AnyArray, F64]:
    """Return which weights are not 0, and what those stand for, shape ``(groups, rows, 1)``."""
    size = np.abs(w)
    order = np.argsort(-size, axis=2, kind="stable")
    each = np.take_along_axis(np.broadcast_to(counts, w.shape), order, axis=2)
    total = np.cumsum(each, axis=2)
    along = np.cumsum(each * np.take_along_axis(size, order, axis=2), axis=2)
    last = w.shape[2] - 1
    most = np.argmax(along**2 / total, axis=2)[:, :, None]
    if keep_all:
        most = np.full_like(most, last)
    else:
        most = np.minimum(most, np.count_nonzero(size, axis=2, keepdims=True) - 1)
    alpha = np.take_along_axis(along / total, most, axis=2)
    kept = np.empty(w.shape, bool)
    np.put_along_axis(kept, order, np.arange(last + 1) <= most, axis=2)
    return kept, alpha


def _alternated(w: F64, counts: F64, start: Solution, block: int) -> Solution:
    """Return scales and nearest codes after a few rounds."""
    grid, codes = start.grid, start.codes
    for _ in range(_ROUNDS):
        fitted = scaled(grid, w, codes, counts, block)
        changed = np.abs(fitted.scale - grid.scale) > _ENOUGH * np.abs(fitted.scale)
        grid, codes = fitted, nearest_codes(w, fitted)
        if not np.any(changed):
            break
    return Solution(codes, grid)
