"""Sum of each channel of a tensor, for its mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq.errors import CalibrationError
from ptq.numerics.arrays import F64, AnyArray


@dataclass(frozen=True, slots=True, eq=False)
class ChannelSums:
    """Sums over the values of each channel.

    Adding is commutative; it is associative but for the rounding of float64 sums, one part in
    10^16 of the largest sum for each addition.

    Attributes:
        sums: float64, shape ``(channels,)``.
        count: values of one channel.
    """

    sums: F64
    count: int

    @classmethod
    def of(cls, sums: AnyArray, count: int) -> ChannelSums:
        """Return what one batch sums up to.

        Raises:
            CalibrationError: a sum is NaN or infinite.
        """
        if not np.all(np.isfinite(sums)):
            raise CalibrationError("takes a NaN or infinite value; check the preprocessing")
        return cls(np.asarray(sums, np.float64), count)

    def __add__(self, other: ChannelSums) -> ChannelSums:
        return ChannelSums(self.sums + other.sums, self.count + other.count)

    def mean(self) -> F64:
        """Return the mean of each channel; 0 if there was no value."""
        return self.sums / max(self.count, 1)
