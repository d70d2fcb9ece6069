"""The values that each channel of a tensor takes, as far as a few figures tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptq.numerics.arrays import F64
from ptq.numerics.normal import clipped_moments, standard_quantiles

#: Values that stand for the distribution of a channel; the outermost lie 3.1 deviations off.
POINTS = 512

#: How many deviations from its mean a channel is taken to reach (DFQ, section 5).
REACH = 6.0


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """Channels that are taken as normally distributed.

    Attributes:
        mean: of each channel, ``(channels,)``.
        std: the standard deviation, likewise.
    """

    mean: F64
    std: F64

    def divided(self, factors: F64) -> Normal:
        """Return the same channels, each divided by its factor."""
        return Normal(self.mean / factors, self.std / factors)


@dataclass(frozen=True, slots=True, eq=False)
class Marginal:
    """The distribution of each channel of one tensor, whatever the others do.

    Attributes:
        mean: of each channel, ``(channels,)``.
        std: the standard deviation, likewise.
        points: values of equal probability, ``(channels, POINTS)``.
        ends: the least and the largest value that is expected, ``(channels, 2)``.
        normal: whether the distribution is normal still.
    """

    mean: F64
    std: F64
    points: F64
    ends: F64
    normal: bool = False

    @classmethod
    def of(cls, channels: Normal) -> Marginal:
        """Return normally distributed channels."""
        mean, std = channels.mean[:, None], channels.std[:, None]
        points = mean + std * standard_quantiles(POINTS)
        ends = mean + std * np.array([-REACH, REACH])
        return cls(channels.mean, channels.std, points, ends, normal=True)

    def map(self, function: Callable[[F64], F64]) -> Marginal:
        """Return what a function makes of each value; it gets arrays of one row a channel."""
        points = function(self.points)
        reached = np.concatenate([points, function(self.ends)], axis=1)
        ends = np.stack([reached.min(axis=1), reached.max(axis=1)], axis=1)
        return Marginal(points.mean(axis=1), points.std(axis=1), points, ends)

    def clipped(self, lo: float, hi: float) -> Marginal:
        """Return what clipping makes of them, with exact moments where they were normal."""
        found = self.map(lambda x: np.clip(x, lo, hi))
        if not self.normal:
            return found
        mean, std = clipped_moments(self.mean, self.std, lo, hi)
        return replace(found, mean=mean, std=std)

    def pooled(self) -> Marginal:
        """Return averages over positions, which may vary together and then as much as one value.

        The mean is exact and the deviation an upper bound; averages reach no further than values.
        """
        found = Marginal.of(Normal(self.mean, self.std))
        lo, hi = self.ends[:, :1], self.ends[:, 1:]
        return replace(found.map(lambda x: np.clip(x, lo, hi)), mean=self.mean, std=self.std)

    def plus(self, other: Marginal) -> Marginal:
        """Return the sum of both, taken as independent and as normal."""
        return Marginal.of(Normal(self.mean + other.mean, np.hypot(self.std, other.std)))

    @staticmethod
    def joined(parts: Sequence[Marginal]) -> Marginal:
        """Return the channels of all parts."""
        return Marginal(
            np.concatenate([p.mean for p in parts]),
            np.concatenate([p.std for p in parts]),
            np.concatenate([p.points for p in parts]),
            np.concatenate([p.ends for p in parts]),
            normal=all(p.normal for p in parts),
        )
