"""Weights that are powers of two, so that a product is a shift."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.ordered import Ordered
from ptq.weights.codebook import Codebook, CodebookQuantizer, to_nearest

#: How much larger and smaller than by the rule the largest power may be.
_OFFSETS = range(-5, 2)


class PotQuantizer(CodebookQuantizer, frozen=True, tag="pot"):
    """Zero and powers of two of either sign, as many as the bits tell apart: each product a shift.

    Levels are 0 and ``+-2^n1 .. +-2^n2``, ``n1 - n2 + 1 = 2^(b-1) - 1`` powers: with 4 bits the 7
    that codes of int8 hold, with room for kernels that saturate. A weight takes the nearest, which
    is ``2^n`` from ``0.75 2^n`` on. The paper has ``2^(b-2)`` powers, for it gives 0 a bit of its
    own, and trains the weights that are not quantized yet.

    Attributes:
        top: how the largest power is found: ``search`` takes the one of least squared error for
            each channel, ``inq`` is the paper's ``n1 = floor(log2(4 max|w| / 3))``.
    """

    paper: ClassVar[str] = (
        "Zhou et al., Incremental Network Quantization: Towards Lossless CNNs with Low-Precision "
        "Weights, ICLR 2017, section 2.1 (INQ; the levels)"
    )
    good_for: ClassVar[str] = (
        "products that are shifts, scales included; with 3 bits at a loss of 3 to 7 dB"
    )
    least_bits: ClassVar[int] = 2
    most_bits: ClassVar[int] = 4

    top: Literal["search", "inq"] = "search"

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return 0 and the powers of two of each row, and the nearest one to each weight."""
        count = (1 << (bits - 1)) - 1
        most = np.abs(rows).max(axis=1, initial=0).astype(np.float64)
        _, above = np.frexp(4 * most / 3)
        top = above - 1
        if self.top == "search":
            top = _least_error(Ordered.of(rows), top, count)
        # what underflows has levels of 0
        levels = np.where(most[:, None] > 0, _levels(top, count), 0.0)
        return to_nearest(rows, levels, levels[:, count + 1])


def _levels(top: AnyArray, count: int) -> F64:
    """Return 0 and the ``count`` powers up to ``2^top`` of either sign, ascending."""
    above = np.ldexp(1.0, top[:, None] + np.arange(1 - count, 1))
    return np.concatenate([-above[:, ::-1], np.zeros((len(top), 1)), above], axis=1)


def _least_error(values: Ordered, top: AnyArray, count: int) -> AnyArray:
    best, least = top, np.full(len(top), np.inf)
    for offset in _OFFSETS:
        errors = values.error(_levels(top + offset, count))
        best = np.where(errors < least, top + offset, best)
        least = np.minimum(errors, least)
    return best
