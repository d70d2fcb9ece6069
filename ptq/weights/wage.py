"""WAGE's quantizer of weights: steps that are powers of two."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.weights.codebook import Codebook, CodebookQuantizer


class WageQuantizer(CodebookQuantizer, frozen=True, tag="wage"):
    """Even symmetric levels whose step is a power of two, by the largest magnitude alone.

    ``Q(w) = clip(s round(w / s), -1 + s, 1 - s)`` with ``s = 2^(1-b)`` (equations 4 and 5), of
    weights in units of ``Shift(max |w|)`` of their channel, ``Shift(x) = 2^round(log2 x)``
    (equation 6). The paper starts from weights within ±1, and divides layers by such a shift. Its
    gradients and errors of few bits are of training, and no part of this.
    """

    paper: ClassVar[str] = (
        "Wu et al., Training and Inference with Integers in Deep Neural Networks, ICLR 2018, "
        "section 3.2"
    )
    good_for: ClassVar[str] = (
        "a baseline of power-of-two scales; `qcode`, which searches them, is better"
    )
    least_bits: ClassVar[int] = 2

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        unit = shift(np.abs(rows).max(axis=1, initial=0.0).astype(np.float64))
        codes = grid_codes(rows / unit[:, None], bits)
        scale, top = unit * 2.0 ** (1 - bits), 2 ** (bits - 1) - 1
        levels = np.arange(-top, top + 1) * np.where(codes.any(axis=1), scale, 0.0)[:, None]
        return Codebook(levels, codes + top, scale)


def shift(x: F64) -> F64:
    """Return the power of two next to each number, in its logarithm; 1 of 0."""
    return np.exp2(np.rint(np.log2(np.where(x > 0, x, 1.0))))


def grid_codes(w: F64, bits: int) -> AnyArray:
    """Return the integers of weights of which ``2^(bits-1)`` is 1, which none reaches."""
    top = 2 ** (bits - 1) - 1
    return np.clip(np.rint(w * 2.0 ** (bits - 1)), -top, top).astype(np.intp)
