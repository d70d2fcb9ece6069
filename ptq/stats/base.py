"""What a statistic is, and the statistics that every calibration collects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from ptq.numerics.arrays import AnyArray
from ptq.stats.ema import DEFAULT_DECAY, EmaMinMax
from ptq.stats.histogram import Histogram
from ptq.stats.minmax import MinMax


class Stat(Protocol):
    """A summary of values: whatever the cuts, adding the parts gives the summary of the whole."""

    @classmethod
    def of(cls, x: AnyArray) -> Self:
        """Summarize an array of finite float32 of any shape."""
        ...

    def __add__(self, other: Self) -> Self: ...

    def arrays(self) -> dict[str, AnyArray]:
        """Return the content as arrays, for `from_arrays`."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Return the summary that `arrays` came from."""
        ...


@dataclass(frozen=True)
class TensorStats:
    """All that is known of one tensor's values.

    The sum is associative; it is commutative but for ``ema``. ``hist`` may be of a sample of the
    values that ``minmax`` is of.

    Attributes:
        minmax: the extremes.
        ema: moving averages of the extremes of each batch.
        hist: the distribution.
    """

    minmax: MinMax
    ema: EmaMinMax
    hist: Histogram

    @classmethod
    def of(cls, x: AnyArray, decay: float = DEFAULT_DECAY) -> Self:
        """Summarize one batch.

        Raises:
            CalibrationError: a value is NaN or infinite.
        """
        return cls(MinMax.of(x), EmaMinMax.of(x, decay), Histogram.of(x))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.minmax + other.minmax, self.ema + other.ema, self.hist + other.hist)
