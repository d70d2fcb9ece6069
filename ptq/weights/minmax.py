"""Weight range from the smallest to the largest weight of each channel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32, F64
from ptq.numerics.qtype import QType
from ptq.weights.base import RangeQuantizer


class MinMaxQuantizer(RangeQuantizer, frozen=True, tag="minmax"):
    """Cover every weight of a channel and round to nearest; nothing saturates."""

    paper: ClassVar[str] = (
        "Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, "
        "arXiv:1806.08342, 2018"
    )
    good_for: ClassVar[str] = (
        "8 bits, the default there; with fewer, one large weight sets the step"
    )

    def ranges(self, rows: F32, qtype: QType, *, symmetric: bool) -> tuple[F64, F64]:
        """Return the extremes of each row, and zero."""
        return extremes(rows)


def extremes(rows: F32) -> tuple[F64, F64]:
    """Return the smallest and the largest value of each row, zero included."""
    lo = rows.min(axis=1, initial=0.0).astype(np.float64)
    hi = rows.max(axis=1, initial=0.0).astype(np.float64)
    return lo, hi
