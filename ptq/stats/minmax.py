"""Smallest and largest value, exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from ptq.errors import CalibrationError
from ptq.numerics.arrays import AnyArray


@dataclass(frozen=True, slots=True)
class MinMax:
    """The extremes of the values seen: ``of(a) + of(b)`` is ``of(a and b)``, to the bit.

    Attributes:
        lo: the smallest value; infinity if there was none.
        hi: the largest value; minus infinity if there was none.
        count: number of values.
    """

    lo: float = math.inf
    hi: float = -math.inf
    count: int = 0

    @classmethod
    def of(cls, x: AnyArray) -> Self:
        """Return the extremes of an array of any shape.

        Raises:
            CalibrationError: a value is NaN or infinite.
        """
        if not x.size:
            return cls()
        lo, hi = float(x.min()), float(x.max())
        if not (math.isfinite(lo) and math.isfinite(hi)):
            raise CalibrationError("takes a NaN or infinite value; check the preprocessing")
        # Minus zero becomes zero, or the bits would depend on the order of the values.
        return cls(lo + 0.0, hi + 0.0, x.size)

    def __add__(self, other: Self) -> Self:
        return type(self)(min(self.lo, other.lo), max(self.hi, other.hi), self.count + other.count)

    @property
    def max_abs(self) -> float:
        """The largest absolute value; 0 if there was none."""
        return max(-self.lo, self.hi) if self.count else 0.0

    def arrays(self) -> dict[str, AnyArray]:
        """Return the content as arrays, for `from_arrays`."""
        return {"ends": np.array([self.lo, self.hi]), "count": np.array([self.count])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Return the summary that `arrays` came from."""
        lo, hi = arrays["ends"].tolist()
        return cls(lo, hi, int(arrays["count"][0]))
