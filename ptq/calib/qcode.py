"""Power-of-two scales: one small integer, the QCode, describes a tensor's grid."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.entropy import divergences, without_spike
from ptq.calib.squared_error import SquaredError
from ptq.numerics.affine import exponent_limits
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: Bits of the number of bins up to the no-overflow threshold, for the divergence: as `kl`.
_BIN_BITS = 11


class QCodeSolver(Solver, frozen=True, tag="qcode"):
    """Power-of-two scale ``2^-n``: requantizing becomes a shift.

    ``x_q = clip(round(x * 2^n), -2^(b-1), 2^(b-1) - 1) / 2^n``. The integer ``n`` is chosen for
    each tensor by itself among `exponents`. In an unsigned container the same grid has zero point
    ``2^(b-1)``.

    Attributes:
        objective: what the best ``n`` has least of: squared error, or KL divergence (as `kl`,
            with ``2^(b-1)`` levels of ``|x|``, and its care for zeros).
    """

    paper: ClassVar[str] = (
        "Jain et al., Trained Quantization Thresholds for Accurate and Efficient Fixed-Point "
        "Inference of Deep Neural Networks, MLSys 2020 (power-of-two scales)"
    )
    good_for: ClassVar[str] = "hardware that multiplies by shifts; costs up to half a bit elsewhere"
    power_of_two: ClassVar[bool] = True

    objective: Literal["mse", "kl"] = "mse"

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of the best exponent; ``symmetric`` makes no difference."""
        return range_of_exponent(best_exponent(stats, qtype, self.objective), qtype)


def exponents(stats: TensorStats, qtype: QType) -> tuple[int, ...]:
    """Return the QCodes worth trying for a tensor, ascending; from coarse to fine.

    They are ``n0 - 1 .. n0 + 3`` around ``n0 = b - 1 - ceil(log2(max|x|))``, the finest grid
    that does not overflow, as far as all of their codes are finite normal float32; beyond 2^127
    a value therefore saturates. All zeros have ``(0,)``.

    Raises:
        CalibrationError: the statistics are of no values.
    """
    max_abs = data_range(stats).max_abs
    if max_abs == 0:
        return (0,)
    middle = qtype.bits - 1 - _ceil_log2(max_abs)
    least, most = exponent_limits(qtype)
    tried = range(middle - 1, middle + 4)
    return tuple(dict.fromkeys(min(max(n, least), most) for n in tried))


def best_exponent(stats: TensorStats, qtype: QType, objective: Literal["mse", "kl"]) -> int:
    """Return the QCode of least squared error or divergence; of equals, the finest.

    Raises:
        CalibrationError: the statistics are of no values.
    """
    tried = exponents(stats, qtype)
    if len(tried) == 1 or not stats.hist.counts.size:
        return tried[0]
    losses = (_errors if objective == "mse" else _divergences)(stats, qtype, tried)
    least = min(losses)
    # Nothing but saturated values has infinite divergence; then the coarsest saturates least.
    equal = [n for n, loss in zip(tried, losses, strict=True) if loss == least]
    return max(equal) if math.isfinite(least) else min(equal)


def range_of_exponent(exponent: int, qtype: QType) -> Range:
    """Return what a signed grid of ``qtype.bits`` bits and scale ``2^-exponent`` represents."""
    half = 1 << (qtype.bits - 1)
    return Range(-math.ldexp(half, -exponent), math.ldexp(half - 1, -exponent))


def _errors(stats: TensorStats, qtype: QType, tried: tuple[int, ...]) -> list[float]:
    scale = np.ldexp(1.0, -np.array(tried))
    half = 1 << (qtype.bits - 1)
    least, most = np.full(scale.shape, -half), np.full(scale.shape, half - 1)
    return [float(e) for e in SquaredError.of(stats)(scale, least, most)]


def _divergences(stats: TensorStats, qtype: QType, tried: tuple[int, ...]) -> list[float]:
    # Bins of a power of two divide the thresholds, which are powers of two, exactly.
    widest = qtype.bits - 1 - tried[0]
    exponent = max(stats.hist.exponent, widest - _BIN_BITS - 1)
    folded = stats.hist.coarsened(exponent).folded()
    counts: F64 = np.zeros(max(folded.first + folded.counts.size, 1 << (widest - exponent)))
    counts[folded.first : folded.first + folded.counts.size] = folded.counts
    stop = np.array([1 << max(qtype.bits - 1 - n - exponent, 1) for n in tried])
    counts = without_spike(counts, 0)
    found = divergences(counts, np.zeros_like(stop), stop, 1 << (qtype.bits - 1))
    return [float(d) for d in found]


def _ceil_log2(x: float) -> int:
    mantissa, exponent = math.frexp(x)
    return exponent - (mantissa == 0.5)
