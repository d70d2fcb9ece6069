"""Exponential moving averages of the minimum and the maximum of each batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from ptq.errors import CalibrationError
from ptq.numerics.arrays import AnyArray
from ptq.stats.minmax import MinMax

#: FQN trains with 0.999; a calibration is hundreds of batches, not thousands.
DEFAULT_DECAY = 0.99


@dataclass(frozen=True, slots=True)
class EmaMinMax:
    """Moving averages ``m_t = decay * m_(t-1) + (1 - decay) * b_t``, begun with ``m_1 = b_1``.

    The sum continues the averages of the first operand with the batches of the second. It is
    associative, to about 1e-14 of the largest value; it is *not* commutative: a moving average
    depends on the order of the batches by definition.

    With ``m`` the average of a run of batches of its own, the same run after ``p`` gives
    ``m + decay^batches * (p - first)``, which is what makes runs composable; and the average of
    equal batches is exactly their common value.

    Attributes:
        lo: average of the minima; 0 before the first batch.
        hi: average of the maxima, likewise.
        first_lo: minimum of the first batch.
        first_hi: maximum of the first batch.
        batches: how many batches.
        decay: weight of the past, in 0..1.

    Reference: Li et al., "Fully Quantized Network for Object Detection", CVPR 2019, section 3.2.
    Departs from it by beginning with the first batch rather than zero.
    """

    lo: float = 0.0
    hi: float = 0.0
    first_lo: float = 0.0
    first_hi: float = 0.0
    batches: int = 0
    decay: float = DEFAULT_DECAY

    @classmethod
    def of(cls, x: AnyArray, decay: float = DEFAULT_DECAY) -> Self:
        """Return the averages after one batch.

        Raises:
            CalibrationError: a value is NaN or infinite.
        """
        seen = MinMax.of(x)
        return cls.of_range(seen.lo, seen.hi, decay) if seen.count else cls(decay=decay)

    @classmethod
    def of_range(cls, lo: float, hi: float, decay: float = DEFAULT_DECAY) -> Self:
        """Return the averages after one batch with these extremes."""
        low, high = lo + 0.0, hi + 0.0  # no minus zero
        return cls(low, high, low, high, 1, decay)

    def __add__(self, other: Self) -> Self:
        if self.decay != other.decay:
            raise CalibrationError(
                f"moving averages of decay {self.decay} and {other.decay} do not add; "
                "calibrate again with one decay"
            )
        if not self.batches or not other.batches:
            return self if self.batches else other
        fade = self.decay**other.batches
        return type(self)(
            other.lo + fade * (self.lo - other.first_lo),
            other.hi + fade * (self.hi - other.first_hi),
            self.first_lo,
            self.first_hi,
            self.batches + other.batches,
            self.decay,
        )

    def arrays(self) -> dict[str, AnyArray]:
        """Return the content as arrays, for `from_arrays`."""
        ends = np.array([self.lo, self.hi, self.first_lo, self.first_hi, self.decay])
        return {"ends": ends, "batches": np.array([self.batches])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Return the summary that `arrays` came from."""
        lo, hi, first_lo, first_hi, decay = arrays["ends"].tolist()
        return cls(lo, hi, first_lo, first_hi, int(arrays["batches"][0]), decay)
