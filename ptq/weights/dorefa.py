"""DoReFa's quantizer of weights: warped by tanh."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.weights.codebook import Codebook, CodebookQuantizer
from ptq.weights.gain import least_squares_gain


class DorefaQuantizer(CodebookQuantizer, frozen=True, tag="dorefa"):
    """Weights warped by tanh onto even levels without 0; a sign if there is one bit.

    ``2 round((2^b - 1) (tanh(w) / (2 max |tanh w|) + 1/2)) / (2^b - 1) - 1``, and of one bit
    ``sign(w)`` (equations 7 to 9). The paper trains from the start, with a normalization behind
    each layer, and so the levels are those between -1 and 1. Of a network that is trained, they are
    multiplied by the gain of least squared error of each channel, which of one bit is ``E|w|``, and
    weights are in units of the largest magnitude of their channel before they are warped.

    The levels are odd multiples of the step, so integer weights of ``b`` bits take ``b + 1``.
    """

    paper: ClassVar[str] = (
        "Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low "
        "Bitwidth Gradients, arXiv:1606.06160, 2016, section 2.3"
    )
    good_for: ClassVar[str] = (
        "a baseline, 4 to 7 dB less than `mse` at 4 bits; training makes it good"
    )
    most_bits: ClassVar[int] = 6

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        top = 2**bits - 1
        index = (rows >= 0).astype(np.intp) if bits == 1 else warped_index(_in_units(rows), top)
        codes = 2 * np.arange(top + 1) - top
        scale = least_squares_gain(rows, codes[index])
        return Codebook(codes * scale[:, None], index, scale)


def warped_index(rows: F64, top: int) -> AnyArray:
    """Return which of ``top + 1`` levels each weight of a row has, 0 the least.

    Args:
        rows: weights, as the paper takes them, shape ``(channels, weights)``.
        top: the number of the largest level.
    """
    warped = np.tanh(rows)
    most = np.abs(warped).max(axis=1, initial=0.0)[:, None]
    part = warped / np.where(most > 0, 2 * most, 1.0) + 0.5
    return np.rint(part * top).astype(np.intp)


def _in_units(rows: F32) -> F64:
    most = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    return np.asarray(rows / np.where(most > 0, most, 1.0)[:, None])
