"""What a weight quantizer with levels of its own is, in place of a uniform grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.arrays import F32, F64, AnyArray, finite
from ptq.numerics.levels import nearest_index, snapped
from ptq.numerics.qtype import INT8_NARROW, QType
from ptq.weights.base import WeightQuantizer, as_rows, of_weight, usual_scale


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """The levels of the rows of a weight, and which level each weight has.

    Attributes:
        levels: float64, shape ``(rows, levels)``, ascending; equal ones are as good as one.
        index: of the level of each weight, shape ``(rows, weights of a row)``.
        scale: where all levels are integer multiples of it, from -127 to 127: shape ``(rows,)``.
            Otherwise ``None``: levels are then rounded to codes of int8.
    """

    levels: F64
    index: AnyArray
    scale: F64 | None = None


def to_nearest(rows: F32, levels: F64, scale: F64 | None = None) -> Codebook:
    """Return the codebook with which each weight has the level next to it."""
    ascending = np.sort(levels, axis=1)
    return Codebook(ascending, nearest_index(rows, ascending), scale)


def in_order(levels: F64, index: AnyArray) -> Codebook:
    """Return the codebook of levels in any order, shape ``(rows, levels)``, and indices into it."""
    order = np.argsort(levels, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    ascending = np.take_along_axis(levels, order, axis=1)
    return Codebook(ascending, np.take_along_axis(rank, index, axis=1))


class CodebookQuantizer(WeightQuantizer, frozen=True):
    """A weight quantizer that chooses levels for each channel, and one of them for each weight.

    With ``b`` bits, there are up to ``2^b`` levels. They become codes of int8, so that the weight
    runs on the same kernels as a uniform one: the error of that is a 250th of the largest level.

    Attributes:
        free_levels: whether levels without a common scale may give way to others, as many, by a
            rounding method (`ptq.rounders.refit`): not where they are sums of fewer numbers.
    """

    free_levels: ClassVar[bool] = False
    uniform: ClassVar[bool] = False
    least_bits: ClassVar[int] = 1
    most_bits: ClassVar[int] = 7

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has.

        Args:
            rows: the weight, shape ``(channels, weights of a channel)``, finite; maybe no weights.
            bits: the width.
        """
        raise NotImplementedError

    def quantize(self, w: AnyArray, qtype: QType, *, axis: int | None, symmetric: bool) -> QTensor:
        """Return the codes of a weight; see `WeightQuantizer.quantize`. Zero points are 0.

        Raises:
            CalibrationError: a weight is NaN or infinite.
            ConfigError: the method has no codes of this width.
        """
        self.require_width(qtype.bits)
        weight = finite(w)
        rows = as_rows(weight, axis)
        found = self.codebook(rows, qtype.bits)
        if found.scale is None:
            counts = counts_of(found.index, found.levels.shape[1])
            scale, codes = snapped(found.levels, counts)
        else:
            scale = np.maximum(found.scale, np.finfo(np.float32).tiny).astype(np.float32)
            codes = np.rint(found.levels / scale[:, None].astype(np.float64)).astype(np.int8)
        scale = usual_scale(scale, np.any(found.levels != 0, axis=1))
        params = QParams(scale, np.zeros(scale.shape, np.int8), INT8_NARROW, 0)
        written = np.take_along_axis(codes, found.index, axis=1)
        params = of_weight(params, axis, weight.ndim)
        levels = codes.reshape(*params.scale.shape, codes.shape[1])
        free = self.free_levels and found.scale is None
        return QTensor(_as_weight(written, weight, axis), params, levels, free)


def counts_of(index: AnyArray, levels: int) -> F64:
    """Return how often each row has each level, and a little, so that none is without."""
    rows = np.arange(len(index))[:, None]
    flat = np.bincount((index + rows * levels).reshape(-1), minlength=len(index) * levels)
    return np.asarray(flat.reshape(len(index), levels) + 1e-3, np.float64)


def _as_weight(rows: AnyArray, weight: F32, axis: int | None) -> AnyArray:
    """Return codes in rows in the shape of the weight."""
    if axis is None:
        return rows.reshape(weight.shape)
    front = np.moveaxis(weight, axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(front), 0, axis))
