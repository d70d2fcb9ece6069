"""Steps of uniform grids for values of a normal distribution: least squared error, closed form."""

from __future__ import annotations

from functools import cache

import numpy as np

from ptq.numerics.arrays import F64

#: Steps between which the best lies, in standard deviations, for a grid with ``n`` of them to a
#: side: none covers less than one deviation or more than nine.
_COVERED = (0.5, 9.0)

#: Beyond so many deviations nothing is left in float64.
_FARTHEST = 40.0


@cache
def half_step(levels: int, *, zero: bool) -> float:
    """Return the step of least error for the positive half of a normal distribution.

    The levels are ``step * (1 .. levels)``, and 0 if ``zero``; values go to the nearest. Without 0
    all that is positive goes to the first level at least, which is the rule of HWGQ (Cai et al.,
    CVPR 2017: ``t_1 = 0``). The error has one least, found by Brent's method.

    Args:
        levels: how many beside 0.
        zero: whether 0 is one.
    """
    from scipy.optimize import minimize_scalar

    if levels == 1 and not zero:
        return float(np.sqrt(2 / np.pi))  # the mean
    low, high = (end / levels for end in _COVERED)
    found = minimize_scalar(
        lambda step: half_error(step, levels, zero=zero),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-9 / levels},
    )
    return float(found.x)


@cache
def whole_step(codes: int) -> float:
    """Return the step of least error of ``codes`` levels, an even number, around the mean.

    Levels are odd multiples of half of the step: Max, "Quantizing for Minimum Distortion", IRE
    Transactions on Information Theory 1960, table II.
    """
    from scipy.optimize import minimize_scalar

    half = codes // 2
    low, high = (end / half for end in _COVERED)
    found = minimize_scalar(
        lambda step: _error(step * (np.arange(half) + 0.5), step * np.arange(half)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-9 / half},
    )
    return float(found.x)


def half_error(step: float, levels: int, *, zero: bool) -> float:
    """Return the mean squared error of the positive half, of deviation 1; see `half_step`."""
    first = 0 if zero else 1
    values = step * np.arange(first, levels + 1)
    starts = step * (np.arange(first, levels + 1) - 0.5)
    starts[0] = 0.0
    return _error(np.asarray(values), np.asarray(starts))


def _error(values: F64, starts: F64) -> float:
    """Return the error where values from each start on go to its level.

    Of ``2 phi(x)`` over ``x > 0``: ``E x^2 - 2 sum v E x + sum v^2 P`` of the intervals.
    """
    from scipy.special import erfc

    ends = np.append(starts[1:], _FARTHEST)
    tails = erfc(np.append(starts, _FARTHEST) / np.sqrt(2))
    shares = tails[:-1] - tails[1:]
    density = np.sqrt(2 / np.pi) * np.exp(-(np.append(starts, ends[-1]) ** 2) / 2)
    means = density[:-1] - density[1:]
    return float(1.0 - 2 * values @ means + (values * values) @ shares)
