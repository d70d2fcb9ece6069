"""What values become where they do not go to the nearest code of a uniform grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptq.errors import CalibrationError
from ptq.numerics.arrays import F64


@dataclass(frozen=True, slots=True)
class Levels:
    """A staircase: real values, and from where on each is taken. Zero becomes zero.

    Attributes:
        values: the levels, ascending, 0 among them.
        starts: ascending, one fewer: values above ``starts[i]`` become ``values[i + 1]`` or more.

    Raises:
        CalibrationError: they are not so, or not finite.
    """

    values: tuple[float, ...]
    starts: tuple[float, ...]

    def __post_init__(self) -> None:
        values, starts = np.asarray(self.values), np.asarray(self.starts)
        if not (np.all(np.isfinite(values)) and np.all(np.isfinite(starts))):
            raise CalibrationError("a level is not finite; check the data for NaN and infinity")
        ordered = np.all(np.diff(values) > 0) and np.all(np.diff(starts) >= 0)
        if not ordered or values.size != starts.size + 1:
            raise CalibrationError(f"the levels {self.values} from {self.starts} on do not ascend")
        if values[int(np.sum(starts < 0))] != 0:
            raise CalibrationError(f"the levels {self.values} do not leave zero as it is")

    @classmethod
    def nearest(cls, values: F64 | Sequence[float]) -> Levels:
        """Return levels that each value goes to the nearest of; equal ones are one."""
        found = np.unique(np.asarray(values, np.float64) + 0.0)  # no zero is negative
        return cls.of(found, (found[:-1] + found[1:]) / 2)

    @classmethod
    def of(cls, values: F64, starts: F64) -> Levels:
        """Return levels of arrays."""
        return cls(tuple(values.tolist()), tuple(starts.tolist()))

    @property
    def lo(self) -> float:
        """The least number that matters: a level, or where the second one starts."""
        return min(self.values[:1] + self.starts[:1])

    @property
    def hi(self) -> float:
        """The largest number that matters."""
        return max(self.values[-1:] + self.starts[-1:])

    def __call__(self, x: F64) -> F64:
        """Return what values become, in float64."""
        return np.asarray(self.values)[np.searchsorted(self.starts, x, side="left")]
