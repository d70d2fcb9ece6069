"""Confidence intervals of a figure, and of the difference of two figures from the same samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Sums: TypeAlias = npt.NDArray[np.float64]

#: Lower and upper end.
Interval: TypeAlias = tuple[float, float]

#: Numbers drawn at a time, so that memory does not grow with the number of resamples.
_DRAWN = 1 << 20


def wilson(right: float, units: int, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion: ``right`` of ``units``, within 0..1.

    It holds where the normal approximation does not: few units, or nearly all of them right.

    Reference: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22, 1927.

    Args:
        right: how many units are right, at most ``units``.
        units: how many there are, at least one.
        level: how often the interval shall hold the true proportion, such as 0.95.
    """
    z = _quantile(level)
    share = right / units
    middle = share + z * z / (2 * units)
    half = z * math.sqrt(share * (1 - share) / units + (z / (2 * units)) ** 2)
    scale = 1 + z * z / units
    # the ends are exact there, and rounding would miss them
    lo = 0.0 if right == 0 else max(0.0, (middle - half) / scale)
    hi = 1.0 if right == units else min(1.0, (middle + half) / scale)
    return lo, hi


def newcombe_paired(
    both: int, only_a: int, only_b: int, neither: int, level: float = 0.95
) -> Interval:
    """Return the interval of ``p_a - p_b``, two proportions of the same units.

    Reference: Newcombe, "Improved Confidence Intervals for the Difference between Binomial
    Proportions Based on Paired Data", Statistics in Medicine 17, 1998, method 10.

    Args:
        both: units that are right with a and with b.
        only_a: units that are right with a alone.
        only_b: units that are right with b alone.
        neither: units that are wrong with both; there is at least one unit in all.
        level: how often the interval shall hold the true difference.
    """
    units = both + only_a + only_b + neither
    right_a, right_b = both + only_a, both + only_b
    share_a, share_b = right_a / units, right_b / units
    (lo_a, hi_a), (lo_b, hi_b) = wilson(right_a, units, level), wilson(right_b, units, level)
    phi = 0.0
    margins = right_a * (units - right_a) * right_b * (units - right_b)
    if margins:
        excess = both * neither - only_a * only_b
        # the continuity correction of a positive correlation
        phi = (max(excess - units / 2, 0) if excess > 0 else excess) / math.sqrt(margins)
    below = _side(share_a - lo_a, hi_b - share_b, phi)
    above = _side(hi_a - share_a, share_b - lo_b, phi)
    return share_a - share_b - below, share_a - share_b + above


def _side(a: float, b: float, phi: float) -> float:
    """Return the length of the difference of two vectors at an angle of cosine ``phi``."""
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


@dataclass(frozen=True, slots=True)
class Resampled:
    """Intervals of two figures, and of the first minus the second; an end may be infinite.

    An end is NaN where no resample has a figure.
    """

    a: Interval
    b: Interval
    difference: Interval


def paired_bootstrap(
    a_sums: Sums,
    b_sums: Sums,
    figure: Callable[[Sums], Sums],
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> Resampled:
    """Return percentile intervals by drawing units with replacement, the same ones for both.

    Costs O(resamples * units * fields), in bounded memory. Ends are order statistics, so that a
    figure may be infinite; a resample without a figure (NaN) is left out. Of few units, say less
    than 20, such intervals are too narrow.

    Reference: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Args:
        a_sums: what each unit adds to the sums, of shape ``(units, fields)``.
        b_sums: likewise of the other model, unit by unit.
        figure: from sums ``(..., fields)`` to figures ``(...)``.
        level: how often the interval shall hold the true figure.
        resamples: how many to draw.
        rng: where randomness comes from.
    """
    units, fields = a_sums.shape
    both = np.concatenate([a_sums, b_sums], axis=1)
    found = []
    step = max(1, _DRAWN // units)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(units, size=(rows, units)) + units * np.arange(rows)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        sums = times.astype(np.float64) @ both
        found.append(np.stack([figure(sums[:, :fields]), figure(sums[:, fields:])]))
    a, b = np.concatenate(found, axis=1)
    with np.errstate(invalid="ignore"):  # infinity minus infinity is no difference
        difference = a - b
    return Resampled(_ends(a, level), _ends(b, level), _ends(difference, level))


def _ends(figures: Sums, level: float) -> Interval:
    figures = figures[~np.isnan(figures)]
    if not figures.size:
        return math.nan, math.nan
    tail = (1 - level) / 2
    # an order statistic: interpolating between infinities gives NaN
    lo, hi = np.quantile(figures, [tail, 1 - tail], method="inverted_cdf")
    return float(lo), float(hi)


def _quantile(level: float) -> float:
    """Return how many standard deviations hold the central ``level`` of a normal distribution."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
