"""Levels of real values as codes: which of the codes of a fine grid each of its codes becomes."""

from __future__ import annotations

import numpy as np

from ptq.calib.levels import Levels
from ptq.numerics.affine import QParams, quantize
from ptq.numerics.arrays import F32_MAX, I64


def coded(levels: Levels, params: QParams) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the codes of levels, and the first code that becomes each but the lowest.

    Each level goes to its nearest code. A code goes where the value that it stands for goes, so
    that thresholds are off by at most half a step of the grid. Levels that share a code or that no
    code becomes are left out.

    Args:
        levels: real values, of which zero becomes zero.
        params: the grid, per tensor, which covers them.
    """
    scale, zero = float(params.scale), int(params.zero_point)
    values = np.clip(np.asarray(levels.values), -F32_MAX, F32_MAX).astype(np.float32)
    codes = quantize(values, params).astype(np.int64)
    bound = params.qtype.levels
    steps = np.clip(np.floor(np.asarray(levels.starts) / scale), -bound, bound)
    firsts = steps.astype(np.int64) + 1 + zero
    return _distinct(codes, np.append(params.qtype.qmin, firsts), params)


def _distinct(codes: I64, firsts: I64, params: QParams) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Leave out levels of no interval, and join those of one code."""
    firsts = np.clip(firsts, params.qtype.qmin, params.qtype.qmax + 1)
    reached = np.append(firsts[1:], params.qtype.qmax + 1) > firsts
    codes, firsts = codes[reached], firsts[reached]
    new = np.append(True, codes[1:] > codes[:-1])
    return tuple(codes[new].tolist()), tuple(firsts[new][1:].tolist())


def looked_up(codes: I64, levels: tuple[int, ...], starts: tuple[int, ...]) -> I64:
    """Return what codes become."""
    return np.asarray(levels)[np.searchsorted(starts, codes, side="right")]
