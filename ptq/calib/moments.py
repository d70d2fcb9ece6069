"""Mean, mean absolute deviation and standard deviation of what a histogram counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptq.stats.base import TensorStats


@dataclass(frozen=True, slots=True)
class Moments:
    """First moments of a tensor's values, each taken for the middle of its bin.

    Attributes:
        mean: what the others are about.
        deviation: mean absolute deviation from it.
        sigma: square root of the mean squared deviation from it.
    """

    mean: float
    deviation: float
    sigma: float

    @classmethod
    def of(cls, stats: TensorStats, *, centred: bool, zeros: bool) -> Moments:
        """Return the moments of a tensor that is not all zeros.

        Args:
            stats: what was observed.
            centred: whether they are about the mean, or about zero.
            zeros: whether exact zeros count.
        """
        hist = stats.hist
        counts = hist.counts.astype(np.float64)
        # no value lies beyond the extremes, which the outermost bins may
        values = np.clip(hist.centres(), stats.minmax.lo, stats.minmax.hi)
        exact = float(hist.zeros) if zeros else 0.0
        total = counts.sum() + exact
        mean = float(counts @ values / total) if centred else 0.0
        away = np.abs(values - mean)
        deviation = (counts @ away + exact * abs(mean)) / total
        squared = (counts @ (away * away) + exact * mean * mean) / total
        return cls(mean, float(deviation), math.sqrt(squared))
