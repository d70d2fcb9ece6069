"""SAWB: weights clipped where two of their moments say."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.errors import ConfigError
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.weights.codebook import Codebook, CodebookQuantizer
from ptq.weights.row_errors import BLOCK

#: c1 and c2 by bits, of levels without 0: IBM's fms-model-optimizer, to which a regression over
#: six families of distributions agrees within 6 %.
COEFFICIENTS = {2: (3.12, -2.064), 3: (7.509, -6.892), 4: (12.68, -12.80), 5: (17.74, -18.64)}

#: The same of levels with 0, of which there is one less; published are those of 2 and 4 bits.
WITH_ZERO = {2: (2.6, -1.71), 4: (12.035, -12.03)}

#: How many bounds are tried where the moments do not tell one.
_TRIED = 100


class SawbQuantizer(CodebookQuantizer, frozen=True, tag="sawb"):
    """Even levels without 0 up to a bound that the mean magnitude and the mean square tell.

    ``alpha = c1 sqrt(E[w^2]) + c2 E|w|`` of each channel fits the bound of least squared error of
    six distributions; levels are odd multiples of ``alpha / (2^b - 1)``. It is at most ``max |w|``.
    Where it is less than ``E|w|``, as of weights of about equal magnitude, of which the fit knows
    nothing, it is the bound of least squared error of 100 that are tried.

    On the six distributions the squared error is at most 1.006 times the least for 2 bits, 1.014
    for 3, 1.28 for 4 and 1.6 for 5.

    Attributes:
        zero: whether the levels are ``2^b - 1`` with 0 among them; for 2 and 4 bits.
    """

    paper: ClassVar[str] = (
        "Choi et al., Accurate and Efficient 2-bit Quantized Neural Networks, MLSys 2019, section 3"
    )
    good_for: ClassVar[str] = "2 bits at no cost in time, a little better than `mse`; not more bits"
    least_bits: ClassVar[int] = min(COEFFICIENTS)
    most_bits: ClassVar[int] = max(COEFFICIENTS)

    zero: bool = False

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        fitted = WITH_ZERO if self.zero else COEFFICIENTS
        if bits not in fitted:
            raise ConfigError(
                f"weight quantizer 'sawb:zero=true' has {' and '.join(map(str, fitted))} bits, "
                f"not {bits}; leave the option out"
            )
        steps = 2**bits - 1 - self.zero
        alpha = bounds(rows, fitted[bits], steps)
        index = level_index(rows, alpha[:, None], steps)
        # odd codes, or all of them, where the levels are the even ones
        codes = (2 * np.arange(steps + 1) - steps) // (1 + self.zero)
        scale = alpha / codes[-1]
        return Codebook(codes * scale[:, None], index, scale)


def bounds(rows: F32, coefficients: tuple[float, float], steps: int) -> F64:
    """Return the bound of each row, 0 of zeros.

    Args:
        rows: the weight, shape ``(channels, weights)``.
        coefficients: what the root of the mean square and the mean magnitude are multiplied by.
        steps: between the least level and the largest.
    """
    if not rows.size:
        return np.zeros(len(rows))
    sizes = np.abs(rows).astype(np.float64)
    mean, most = sizes.mean(axis=1), sizes.max(axis=1)
    c1, c2 = coefficients
    alpha = np.minimum(c1 * np.sqrt((sizes * sizes).mean(axis=1)) + c2 * mean, most)
    for i in np.flatnonzero((alpha < mean) & (most > 0)):
        alpha[i] = bound_of_least_error(rows[i].astype(np.float64), steps)
    return np.asarray(alpha)


def bound_of_least_error(w: F64, steps: int) -> float:
    """Return the bound of least squared error of 100, evenly spaced up to the maximum.

    Args:
        w: of shape ``(weights,)``; 0 if all of them are.
        steps: between the least level and the largest, both of them bounds.
    """
    most = float(np.abs(w).max(initial=0.0))
    if not most:
        return 0.0
    tried = np.linspace(0.0, most, _TRIED + 1)[1:]
    errors = np.zeros(len(tried))
    chunk = max(1, BLOCK // len(tried))
    for start in range(0, len(w), chunk):
        part = w[None, start : start + chunk]
        index = level_index(part, tried[:, None], steps)
        errors += ((part - tried[:, None] * (2 * index / steps - 1)) ** 2).sum(axis=1)
    return float(tried[int(np.argmin(errors))])


def level_index(w: AnyArray, alpha: F64, steps: int) -> AnyArray:
    """Return which of the even levels from ``-alpha`` to ``alpha`` is next to each weight.

    Args:
        w: weights.
        alpha: it broadcasts over them; where it is 0, all have the middle level.
        steps: how many there are between the levels.
    """
    part = np.clip(w / np.where(alpha > 0, alpha, 1.0), -1.0, 1.0)
    return np.rint((part / 2 + 0.5) * steps).astype(np.intp)
