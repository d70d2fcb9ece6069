"""Weights as a sum of signs: each base is the sign of what those before it leave."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32
from ptq.numerics.bases import residuals, signs
from ptq.weights.codebook import Codebook, CodebookQuantizer, in_order


class ResidualQuantizer(CodebookQuantizer, frozen=True, tag="residual"):
    """A sum of as many signs as bits, each of what is left so far, times its mean magnitude.

    ``R_0 = w``, ``alpha_k = mean |R_{k-1}|``, ``B_k = sign(R_{k-1})``, of 0 it is 1, and
    ``R_k = R_{k-1} - alpha_k B_k``. Each base lowers the error; to choose all of them together
    lowers it more, which is `lq`. The paper does the same to inputs at run time, not done here.
    """

    paper: ClassVar[str] = (
        "Li et al., Performance Guaranteed Network Acceleration via High-Order Residual "
        "Quantization, ICCV 2017, section 3 (HORQ; the weights)"
    )
    good_for: ClassVar[str] = "bases one after the other, in a moment; lq is better with as many"
    most_bits: ClassVar[int] = 4

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return all sums of the bases of each row, and the one that taking them in turn gives."""
        alphas = residuals(rows, bits)
        rest = rows.astype(np.float64, order="C")
        taken = np.zeros(rows.shape, np.intp)
        for k in range(bits):
            plus = rest >= 0
            rest -= np.where(plus, alphas[:, k, None], -alphas[:, k, None])
            taken = 2 * taken + plus
        return in_order((signs(bits) * alphas[:, None, :]).sum(axis=2), taken)
