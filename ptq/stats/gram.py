"""Sums of products of the inputs of a layer: what the error of its output depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ptq.numerics.arrays import F64, AnyArray

#: Rows whose products float32 adds up exactly: 256 * 255^2 < 2^24.
_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """The sum of ``x x^T`` over vectors of codes less their zero point.

    Codes of 8 bits are at most 255 from their zero point, so that all sums are exact integers:
    ``of(a) + of(b)`` is ``of(a and b)`` to the bit, whatever the order and the threads, up to 2^36
    vectors.

    Attributes:
        total: float64, shape ``(groups, columns, columns)``.
        count: number of vectors in each group.
    """

    total: F64
    count: int

    @classmethod
    def of(cls, x: AnyArray) -> Self:
        """Sum up vectors.

        Args:
            x: integers of at most 255 in magnitude, as float32, shape
                ``(groups, vectors, columns)``.
        """
        groups, count, columns = x.shape
        total = np.zeros((groups, columns, columns))
        for i in range(0, count, _ROWS):
            block = x[:, i : i + _ROWS]
            total += block.transpose(0, 2, 1) @ block
        return cls(total, count)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.total + other.total, self.count + other.count)
