"""Range of least error under a Laplace or Gauss distribution, in closed form."""

from __future__ import annotations

import math
from functools import cache
from typing import ClassVar, Literal

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.moments import Moments
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: Beyond this many standard deviations of a Gauss distribution nothing is left to clip, whatever
#: the number of bits: erfc(40 / sqrt 2) is 0 in float64.
_FARTHEST = 40.0

#: Mean absolute over standard deviation: 1 / sqrt 2 if Laplace, sqrt(2 / pi) if Gauss distributed,
#: and the same of one side of either about zero.
_MIDWAY = (math.sqrt(1 / 2) + math.sqrt(2 / math.pi)) / 2


class AciqSolver(Solver, frozen=True, tag="aciq"):
    """Least squared error if the values were Laplace or Gauss distributed: from two moments.

    The range is ``mean - a .. mean + a`` within the extremes, with ``a`` a multiple of the mean
    absolute deviation (Laplace) or the standard deviation (Gauss) that depends on the number of
    bits alone. Of a tensor of one sign, as after Relu, it is ``0 .. a``, and the moments are those
    of the values that are not zero. On a symmetric grid the moments are about zero.

    Attributes:
        distribution: what the values are taken for; ``auto`` takes the one that fits their two
            moments better, or the extremes if these leave less error. The authors' code takes the
            one of smaller error, each if it were true; at 8 bits that is Gauss for any tensor.
    """

    paper: ClassVar[str] = (
        "Banner et al., Post training 4-bit quantization of convolutional networks for "
        "rapid-deployment, NeurIPS 2019, section 2 (ACIQ)"
    )
    good_for: ClassVar[str] = (
        "few bits from statistics of few samples; at 8 bits it clips too much on most networks"
    )

    distribution: Literal["auto", "laplace", "gauss"] = "auto"

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range, within the data's extremes; costs O(bins)."""
        data = data_range(stats)
        one_sided = data.lo == 0 or data.hi == 0
        if not stats.hist.counts.size:
            return data
        # half of a symmetric grid is for the other sign
        grid = qtype.bits if not one_sided else qtype.bits - symmetric
        about_zero = symmetric or one_sided
        moments = Moments.of(stats, centred=not about_zero, zeros=not one_sided)
        distribution = _nearest(moments) if self.distribution == "auto" else self.distribution
        clip, error = _unit(distribution, grid, one_sided)
        spread = moments.deviation if distribution == "laplace" else moments.sigma
        if self.distribution == "auto":
            width = 2 * data.max_abs if symmetric else data.hi - data.lo
            if (width / (1 << qtype.bits)) ** 2 / 12 <= error * spread * spread:
                return data
        alpha = clip * spread
        if alpha == 0:
            return data
        return data.clipped(moments.mean - alpha, moments.mean + alpha)


def laplace_clip(bits: int, *, one_sided: bool) -> float:
    """Return the best clipping value of a Laplace distribution, in mean absolute deviations.

    It makes ``2 e^-t + t^2 / (3 * 4^bits)`` small, the noise of clipping and that of rounding:
    ``t e^t = 3 * 4^bits``. Of one side, a step is half as large: ``12`` in place of ``3``.

    Reference: Banner et al. 2019, equations 7 and 8 and, for one side, the appendix on Relu.
    """
    from scipy.special import lambertw

    return float(lambertw(_levels(bits, one_sided=one_sided)).real)


def gauss_clip(bits: int, *, one_sided: bool) -> float:
    """Return the best clipping value of a Gauss distribution, in standard deviations.

    The root of the derivative of `gauss_error`, which has one: it rises throughout.

    Reference: Banner et al. 2019, equation 9 and the appendix on Relu.
    """
    from scipy.optimize import brentq

    coarse = 1 / _levels(bits, one_sided=one_sided)

    def slope(t: float) -> float:
        tail = math.sqrt(2 / math.pi) * math.exp(-t * t / 2)
        return t * (math.erfc(t / math.sqrt(2)) + coarse) - tail

    return float(brentq(slope, 0.0, _FARTHEST, xtol=1e-13))


def laplace_error(t: float, bits: int, *, one_sided: bool) -> float:
    """Return the mean squared error of clipping at ``t`` mean absolute deviations of 1."""
    return 2 * math.exp(-t) + t * t / _levels(bits, one_sided=one_sided)


def gauss_error(t: float, bits: int, *, one_sided: bool) -> float:
    """Return the mean squared error of clipping at ``t`` standard deviations of 1."""
    clipped = (1 + t * t) * math.erfc(t / math.sqrt(2))
    clipped -= math.sqrt(2 / math.pi) * t * math.exp(-t * t / 2)
    return clipped + t * t / _levels(bits, one_sided=one_sided)


def _levels(bits: int, *, one_sided: bool) -> float:
    return (12.0 if one_sided else 3.0) * 4.0**bits


@cache
def _unit(distribution: str, bits: int, one_sided: bool) -> tuple[float, float]:
    """Return clipping value and error of a distribution of spread 1."""
    if distribution == "laplace":
        t = laplace_clip(bits, one_sided=one_sided)
        return t, laplace_error(t, bits, one_sided=one_sided)
    t = gauss_clip(bits, one_sided=one_sided)
    return t, gauss_error(t, bits, one_sided=one_sided)


def _nearest(moments: Moments) -> Literal["laplace", "gauss"]:
    """Return the distribution of which the ratio of the two moments is nearer, of either side."""
    return "gauss" if moments.deviation > _MIDWAY * moments.sigma else "laplace"
