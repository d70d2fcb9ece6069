"""Power-of-two weight scales of least squared error."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.affine import QParams, QTensor, exponent_limits, qparams_power_of_two, quantize
from ptq.numerics.arrays import AnyArray, finite
from ptq.numerics.qtype import QType
from ptq.weights.base import WeightQuantizer, as_rows, of_weight, usual_scale
from ptq.weights.minmax import extremes
from ptq.weights.row_errors import row_errors


class QCodeQuantizer(WeightQuantizer, frozen=True, tag="qcode"):
    """Power-of-two scale of least squared error for each channel, on all ``2^bits`` codes.

    Tries ``n0 - 1 .. n0 + 3`` around ``n0 = b - 1 - ceil(log2(max|w|))``, the finest exponent
    that does not overflow.
    """

    paper: ClassVar[str] = (
        "Jain et al., Trained Quantization Thresholds for Accurate and Efficient Fixed-Point "
        "Inference of Deep Neural Networks, MLSys 2020 (power-of-two scales)"
    )
    good_for: ClassVar[str] = "hardware that multiplies by shifts; costs up to half a bit elsewhere"

    def quantize(self, w: AnyArray, qtype: QType, *, axis: int | None, symmetric: bool) -> QTensor:
        """Return the codes of a weight; the zero point is in the middle of the grid anyway."""
        weight = finite(w)
        rows = as_rows(weight, axis)
        lo, hi = extremes(rows)
        mantissa, power = np.frexp(np.maximum(-lo, hi))
        middle = qtype.bits - 1 - (power - (mantissa == 0.5))
        best, least = middle, np.full(len(rows), np.inf)
        for offset in range(-1, 4):
            tried = np.clip(middle + offset, *exponent_limits(qtype))
            errors = row_errors(rows, qparams_power_of_two(tried, qtype, axis=0))
            best = np.where(errors <= least, tried, best)
            least = np.minimum(errors, least)
        params = qparams_power_of_two(best, qtype, axis=0)
        scale = usual_scale(params.scale, np.any(rows != 0, axis=1))
        params = of_weight(QParams(scale, params.zero_point, qtype, 0), axis, weight.ndim)
        return QTensor(quantize(weight, params), params)
