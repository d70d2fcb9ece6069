"""The squared error that rounding makes in every row of a weight."""

from __future__ import annotations

import numpy as np

from ptq.numerics.affine import QParams
from ptq.numerics.arrays import F32, F64

#: Weights worked on together, so that intermediate results stay in the cache; and few enough for
#: a float32 sum, which then is right to about 1e-6.
BLOCK = 1 << 17


def row_errors(rows: F32, params: QParams) -> F64:
    """Return the sum of ``(w - Q(w))^2`` over each row.

    Args:
        rows: the weight, shape ``(channels, weights of a channel)``.
        params: scale and zero point of each row.
    """
    zero_point = params.zero_point.astype(np.float32)[:, None]
    least, most = params.qtype.qmin - zero_point, params.qtype.qmax - zero_point
    scale = params.scale[:, None]
    total = np.zeros(len(rows))
    for i in range(0, rows.shape[1], BLOCK):
        steps = rows[:, i : i + BLOCK] / scale
        codes = np.rint(steps)
        np.maximum(codes, least, out=codes)
        np.minimum(codes, most, out=codes)
        steps -= codes
        # In steps, for squares of values far from 1 could leave float32.
        total += np.einsum("ij,ij->i", steps, steps)
    return np.asarray(total * params.scale.astype(np.float64) ** 2)
