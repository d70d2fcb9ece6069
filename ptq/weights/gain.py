"""What integer codes are to be multiplied by to be nearest to weights."""

from __future__ import annotations

import numpy as np

from ptq.numerics.arrays import F32, F64, AnyArray


def least_squares_gain(rows: F32, codes: AnyArray) -> F64:
    """Return ``<w, q> / <q, q>`` of each row, the ``a`` of least ``|w - a q|^2``; 0 of zeros.

    Methods that are defined on ``[-1, 1]`` leave the size of weights to the normalization behind
    the layer. Where that is folded into the weights, a gain for each channel takes its place.

    Args:
        rows: the weight, shape ``(channels, weights)``.
        codes: integers, same shape, of which a row is of the sign of its weights.
    """
    values = np.asarray(codes, np.float64)
    of_both = np.einsum("ij,ij->i", rows.astype(np.float64), values)
    of_one = np.einsum("ij,ij->i", values, values)
    return np.asarray(of_both / np.where(of_one > 0, of_one, 1.0))
