"""Codes that take a few values of their grid only: the levels of a codebook.

Kernels multiply int8 codes by a scale. Levels that are not evenly spaced become the nearest codes
of int8, so that a codebook runs on the same kernels as a uniform grid, and the file can have an
index for each weight beside a table of codes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptq.numerics.affine import QParams, QTensor, per_element
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.qtype import INT8_NARROW


def nearest_level(x: AnyArray, levels: AnyArray) -> AnyArray:
    """Return for each value the level next to it, the lower one of two that are as near.

    Args:
        x: shape ``(..., values)``.
        levels: shape ``(..., levels)``, ascending; equal ones are as good as one.

    Returns:
        Levels, in the shape of ``x``.
    """
    return np.asarray(np.take_along_axis(levels, nearest_index(x, levels), axis=-1))


def nearest_index(x: AnyArray, levels: AnyArray) -> AnyArray:
    """Return for each value the index of the level that `nearest_level` gives."""
    middles = (np.asarray(levels, np.float64)[..., 1:] + levels[..., :-1]) / 2
    index = np.zeros(x.shape, np.intp)
    for i in range(middles.shape[-1]):
        index += x > middles[..., i, None]
    return index


def snapped(levels: F64, counts: F64, most_steps: int = INT8_NARROW.qmax) -> tuple[F32, AnyArray]:
    """Return the scales and codes of int8 that are nearest to levels.

    The largest level of a row is ``most_steps`` to half as many steps from 0: as many as give the
    least squared error.

    Args:
        levels: shape ``(rows, levels)``, finite.
        counts: how much each counts, same shape.
        most_steps: the largest magnitude of a code.

    Returns:
        Scales, float32 of shape ``(rows,)``, 1 for rows of zeros; codes, int8 in the shape of
        ``levels``.
    """
    largest = np.abs(levels).max(axis=1)
    alive = largest >= np.finfo(np.float32).tiny * INT8_NARROW.qmax
    largest = np.where(alive, largest, 1.0)
    shares = np.where(alive[:, None], levels / largest[:, None], 0.0)
    most, least = np.full(len(levels), most_steps), np.full(len(levels), np.inf)
    for steps in range(most_steps, most_steps // 2, -1):
        errors = (counts * (np.rint(shares * steps) / steps - shares) ** 2).sum(axis=1)
        most = np.where(errors < least, steps, most)
        least = np.minimum(errors, least)
    scale = np.where(alive, largest / most, 1.0).astype(np.float32)
    return scale, np.rint(shares * most[:, None]).astype(np.int8)


def within(tensor: QTensor, most: int) -> QTensor:
    """Return a tensor with levels whose codes are of a magnitude of at most ``most``.

    Each level moves by half a step of the coarser grid at most.
    """
    assert tensor.levels is not None
    largest = np.abs(tensor.levels.astype(np.int16)).max(axis=-1)
    shrink = np.maximum(largest / most, 1.0)
    scale = np.asarray(tensor.qparams.scale * shrink, np.float32)
    return at_scale(tensor, scale)


def at_scale(tensor: QTensor, scale: F32) -> QTensor:
    """Return a tensor with levels whose values are about the same in steps of other sizes.

    Args:
        tensor: with zero points of 0.
        scale: the sizes, in the shape of its scale; a larger one merges levels.
    """
    assert tensor.levels is not None
    old = tensor.qparams
    qtype = old.qtype
    new = replace(old, scale=scale)
    ratio = QParams((old.scale / scale).astype(np.float32), old.zero_point, qtype, old.axis)
    spread, _ = per_element(ratio, tensor.codes.shape)

    def moved(codes: AnyArray, by: AnyArray) -> AnyArray:
        steps = np.clip(np.rint(codes * by), qtype.qmin, qtype.qmax)
        return np.asarray(steps, codes.dtype)

    levels = moved(tensor.levels, ratio.scale[..., None])
    return QTensor(moved(tensor.codes, spread), new, levels, tensor.free)
