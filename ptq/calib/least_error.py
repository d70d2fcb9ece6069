"""The range of least error between the values and their quantized form, in any norm."""

from __future__ import annotations

import numpy as np

from ptq.calib.base import Range, data_range
from ptq.calib.squared_error import SquaredError
from ptq.numerics.affine import qparams_from_range
from ptq.numerics.arrays import F64
from ptq.numerics.clip_search import search_clip
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: Factors on the extremes: a fine linear grid, and a coarse tail for tensors with far outliers.
_SHRINKS = np.concatenate([np.geomspace(1e-3, 0.05, 16, endpoint=False), np.linspace(0.05, 1, 96)])


def least_error_range(
    stats: TensorStats, qtype: QType, *, symmetric: bool, norm: float = 2.0
) -> Range:
    """Return the range of the least sum of ``|x - Q(x)|^norm`` found; of equals, the widest.

    Both ends shrink by a common factor first; on an asymmetric grid, a tensor of both signs then
    has each end tried on its own.

    Raises:
        CalibrationError: the statistics are of no values.
    """
    data = data_range(stats)
    if not stats.hist.counts.size:
        return data
    error = SquaredError.of(stats)

    def loss(lo: F64, hi: F64) -> F64:
        params = qparams_from_range(lo[:, 0], hi[:, 0], qtype, symmetric=symmetric, axis=0)
        zero_point = params.zero_point.astype(np.float64)
        found = error(params.scale, qtype.qmin - zero_point, qtype.qmax - zero_point, norm=norm)
        return found[:, None]

    two_ended = data.lo < 0 < data.hi and not symmetric
    lo, hi = search_clip(
        np.array([data.lo]), np.array([data.hi]), loss, _SHRINKS, separately=two_ended
    )
    found = Range(float(lo[0]), float(hi[0]))
    return data.clipped(-found.max_abs, found.max_abs) if symmetric else found
