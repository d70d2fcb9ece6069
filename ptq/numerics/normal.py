"""Mean and deviation of normal variables that were clipped, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptq.numerics.arrays import F64


def clipped_moments(mean: F64, std: F64, lo: float, hi: float) -> tuple[F64, F64]:
    """Return mean and standard deviation of ``clip(x, lo, hi)`` for normal x.

    With A and B the bounds in deviations from the mean, the mean is ``std (phi(A) - phi(B)) +
    mean (Phi(B) - Phi(A)) + lo Phi(A) + hi (1 - Phi(B))``.

    Reference: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", ICCV 2019, section 4.2.1 and appendix C.

    Args:
        mean: of x, any shape.
        std: likewise, not negative; where it is 0, x is its mean.
        lo: the lower bound, which may be minus infinity.
        hi: the upper bound, which may be infinity.
    """
    moved = std > 0
    unit = np.where(moved, std, 1.0)
    below, above = _Bound.of((lo - mean) / unit), _Bound.of((mean - hi) / unit)
    # u = clip((x - mean) / std, A, B); `above` is the mirror image of B
    first = below.density - above.density + below.held - above.held
    inside = 1.0 - below.share - above.share
    second = inside + below.edge + above.edge + below.held_square + above.held_square
    spread = np.sqrt(np.maximum(second - first**2, 0.0))
    clipped: F64 = np.where(moved, mean + unit * first, np.clip(mean, lo, hi))
    return clipped, np.where(moved, unit * spread, 0.0)


def standard_quantiles(count: int) -> F64:
    """Return the middles of so many parts of equal probability of the standard normal."""
    from scipy.special import ndtri

    found: F64 = ndtri((np.arange(count) + 0.5) / count)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Bound:
    """What a standard normal z has at and below ``a``: ``P(z < a)`` and what it is multiplied by.

    Attributes:
        share: P(z < a).
        density: of z at a.
        edge: a times the density.
        held: a times the share.
        held_square: a^2 times the share.
    """

    share: F64
    density: F64
    edge: F64
    held: F64
    held_square: F64

    @classmethod
    def of(cls, at: F64) -> _Bound:
        from scipy.special import ndtr

        # all that is beyond an infinite bound is 0, and 0 times infinity would not be
        finite = np.where(np.isfinite(at), at, 0.0)
        share = np.where(np.isfinite(at), ndtr(finite), np.where(at > 0, 1.0, 0.0))
        density = np.where(
            np.isfinite(at), np.exp(-0.5 * finite**2) / math.sqrt(2.0 * math.pi), 0.0
        )
        return cls(share, density, finite * density, finite * share, finite**2 * share)
