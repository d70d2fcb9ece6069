"""Methods whose levels are no uniform grid: the values they are fitted to, and what they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.least_error import least_error_range
from ptq.calib.levels import Levels
from ptq.numerics.affine import qparams_from_range
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: Bins are merged down to this many, many to a level of 7 bits.
_MAX_BINS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The middles of the bins of a histogram, ascending, without exact zeros.

    Attributes:
        x: the values.
        mass: how many there are of each.
    """

    x: F64
    mass: F64
    _sums: F64

    @classmethod
    def of(cls, stats: TensorStats) -> Points:
        """Return the values of a tensor that is not all zeros."""
        hist = stats.hist
        while hist.counts.size > _MAX_BINS:
            hist = hist.coarsened(hist.exponent + 1)
        some = hist.counts > 0
        # no value lies beyond the extremes, which the outermost bins may
        x = np.clip(hist.centres(), stats.minmax.lo, stats.minmax.hi)[some]
        return cls.with_mass(x, hist.counts[some].astype(np.float64))

    @classmethod
    def with_mass(cls, x: F64, mass: F64) -> Points:
        """Return points of which there are so many each."""
        sums = np.cumsum([mass, mass * x, mass * x * x], axis=1)
        return cls(x, mass, np.concatenate([np.zeros((3, 1)), sums], axis=1))

    def within(self, starts: F64) -> F64:
        """Return count, sum and sum of squares from each start to the next, shape ``(3, n + 1)``.

        A point at a start is below it.
        """
        at = np.searchsorted(self.x, starts, side="right")
        at = np.concatenate([[0], at, [self.x.size]])
        return np.asarray(np.diff(self._sums[:, at], axis=1))

    @property
    def two_sided(self) -> bool:
        """Whether there are values of both signs."""
        return bool(self.x[0] < 0 < self.x[-1])

    def folded(self) -> Points:
        """Return the magnitudes, ascending."""
        order = np.argsort(np.abs(self.x), kind="stable")
        return Points.with_mass(np.abs(self.x)[order], self.mass[order])

    def unfolded(self, values: F64, starts: F64) -> Levels:
        """Return levels for values of these signs, given those of magnitudes.

        Args:
            values: ascending from 0.
            starts: a magnitude above ``starts[i]`` becomes ``values[i + 1]`` or more.
        """
        if self.x[0] >= 0:
            return Levels.of(values, starts)
        # values below, not at, a start go further down
        under = np.nextafter(-starts[::-1], -np.inf)
        if not self.two_sided:
            return Levels.of(0.0 - values[::-1], under)
        return Levels.of(np.concatenate([-values[:0:-1], values]), np.concatenate([under, starts]))

    def error(self, levels: Levels) -> float:
        """Return the sum of the squared errors."""
        count, total, squares = self.within(np.asarray(levels.starts))
        values = np.asarray(levels.values)
        return float(np.sum(squares - 2 * values * total + values * values * count))


class NonUniformSolver(Solver, frozen=True):
    """A method with levels of its own below 8 bits.

    With 8 bits, and for constants and the parts and the whole of a concatenation, whose scale is
    settled together, its ranges are those of `mse`.
    """

    @property
    def uniform(self) -> bool:
        """They are not."""
        return False

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of least squared error."""
        return least_error_range(stats, qtype, symmetric=symmetric)

    def levels(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Levels | None:
        """Return the levels; ``None`` of a tensor of zeros."""
        if not stats.hist.counts.size:
            data_range(stats)  # refuses what was never observed
            return None
        return self.fitted(stats, Points.of(stats), qtype)

    def fitted(self, stats: TensorStats, points: Points, qtype: QType) -> Levels:
        """Return the levels of a tensor that is not all zeros.

        Args:
            stats: what is known of it.
            points: its values.
            qtype: the grid that the levels stand in place of.
        """
        raise NotImplementedError


def uniform_levels(stats: TensorStats, qtype: QType) -> Levels:
    """Return the levels of the grid of least squared error, where searches start."""
    found = least_error_range(stats, qtype, symmetric=False)
    params = qparams_from_range(found.lo, found.hi, qtype, symmetric=False)
    steps = np.arange(qtype.qmin, qtype.qmax + 1) - int(params.zero_point)
    return Levels.nearest(np.asarray(steps * float(params.scale)))
