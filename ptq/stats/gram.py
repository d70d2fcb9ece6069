"""Sums of the inputs of a layer and of their products: what its output's error depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ptq.numerics.arrays import F64, AnyArray

#: Rows whose products float32 adds up exactly: 256 * 255^2 < 2^24.
_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """The sums of ``x x^T`` and ``x`` over vectors of codes less their zero point, or of floats.

    Codes of 8 bits are at most 255 from their zero point, so that all sums are exact integers:
    ``of(a) + of(b)`` is ``of(a and b)`` to the bit, whatever the order and the threads, up to 2^36
    vectors. Of floats, products are added up in float32, 256 at a time, and those sums in float64:
    they are exact to about ``256 * 2^-24`` of the sum of magnitudes.

    Attributes:
        total: float64, shape ``(groups, columns, columns)``.
        count: number of vectors in each group.
        sums: float64, shape ``(groups, columns)``.
    """

    total: F64
    count: int
    sums: F64

    @classmethod
    def of(cls, x: AnyArray) -> Self:
        """Sum up vectors.

        Args:
            x: float32, shape ``(groups, vectors, columns)``.
        """
        groups, count, columns = x.shape
        total = np.zeros((groups, columns, columns))
        for i in range(0, count, _ROWS):
            block = x[:, i : i + _ROWS]
            total += block.transpose(0, 2, 1) @ block
        return cls(total, count, x.sum(axis=1, dtype=np.float64))

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.total + other.total, self.count + other.count, self.sums + other.sums
        )

    @property
    def mean(self) -> F64:
        """The mean vector of each group; zeros of no vectors."""
        return np.asarray(self.sums / max(self.count, 1))

    @property
    def centred(self) -> F64:
        """The sum of products of what vectors differ from the mean by.

        It is what the error of an output depends on where a bias takes its mean away.
        """
        return np.asarray(self.total - self.sums[:, :, None] * self.mean[:, None, :])
