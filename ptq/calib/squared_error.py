"""The error of quantizing the values of a histogram, squared or not, for many grids at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq.numerics.arrays import F64, AnyArray
from ptq.stats.base import TensorStats

#: Bins are merged down to this many: still 8 or more to a step of 8 bits.
_MAX_BINS = 4096
#: The width of a bin of which all values equal an extreme, relative to that value.
_SLIVER = 2.0**-22
#: Grids evaluated together, so that intermediate results stay in the cache.
_CHUNK = 8


@dataclass(frozen=True, slots=True, eq=False)
class SquaredError:
    """Sum of ``(x - Q(x))^2`` over the values, as if spread evenly inside each bin.

    Bin centres would do while a bin is much narrower than a step. At 16 bits, or for a range much
    narrower than the data, it is wider, and a search would find grids of which the centres happen
    to be codes. The integral over a bin has no such holes and costs the same: with ``t = x / s``,
    ``q`` the code and ``r = t - q``, an antiderivative of ``(t - q)^2`` that is continuous from
    code to code is ``q / 12 + r^3 / 3``, and a histogram needs it at its edges only.

    Exact zeros have no error, and no value is taken to lie beyond the extremes of the data; many
    that equal the largest, as of ReLU6, are taken for just that.

    Attributes:
        points: edges of bins, in units of ``2^exponent``.
        weights: by what the antiderivative at each point counts.
        exponent: binary logarithm of the unit.
    """

    points: F64
    weights: F64
    exponent: int

    @classmethod
    def of(cls, stats: TensorStats) -> SquaredError:
        """Return the error function of a tensor that is not all zeros."""
        hist = stats.hist
        while hist.counts.size > _MAX_BINS:
            hist = hist.coarsened(hist.exponent + 1)
        least, most = np.ldexp([stats.minmax.lo, stats.minmax.hi], -hist.exponent)
        left = hist.first + np.arange(float(hist.counts.size))
        right = left + 1
        mass = hist.counts.astype(np.float64)
        # The histogram may be of a sample; the extremes have been seen all the same.
        single = hist.total / stats.minmax.count
        beyond = [end for end in (least, most) if end and not left[0] <= end <= right[-1]]
        left = np.append(left, beyond)
        right = np.append(right, beyond)
        mass = np.append(mass, [single] * len(beyond))
        # No value lies outside of the extremes, so the outermost bins end there.
        left, right = np.maximum(left, least), np.minimum(right, most)
        sliver = _SLIVER * np.maximum(np.abs(left), np.abs(right))
        thin = right - left < sliver
        left = np.where(thin & (right > 0), right - sliver, left)
        right = np.where(thin & (right <= 0), left + sliver, right)
        density = mass / (right - left)
        points, place = np.unique(np.concatenate([left, right]), return_inverse=True)
        weights = np.bincount(place, np.concatenate([-density, density]))
        kept = weights != 0
        return cls(points[kept], weights[kept], hist.exponent)

    def __call__(
        self, scale: AnyArray, least: AnyArray, most: AnyArray, *, norm: float = 2.0
    ) -> F64:
        """Return the error for every grid, in units of ``4^exponent``.

        In another norm than 2 it is the sum of ``|x - Q(x)|^norm``, in units of
        ``2^(norm exponent)``. The antiderivative is then, likewise continuous,
        ``(2^-norm q + sign(r) |r|^(norm + 1)) / (norm + 1)``.

        Args:
            scale: steps, shape ``(grids,)``.
            least: smallest code minus zero point, likewise.
            most: largest code minus zero point, likewise.
            norm: the power of the errors.
        """
        step = np.ldexp(scale.astype(np.float64), -self.exponent)
        total = np.empty(step.size)
        for i in range(0, step.size, _CHUNK):
            part = slice(i, i + _CHUNK)
            t = self.points / step[part, None]
            code = np.rint(t)
            np.clip(code, least[part, None], most[part, None], out=code)
            t -= code
            if norm == 2.0:
                code /= 12
                code += t * t * t / 3
            else:
                code *= 2.0**-norm
                code += np.copysign(np.abs(t) ** (norm + 1), t)
                code /= norm + 1
            total[part] = code @ self.weights
        return np.asarray(total * step ** (norm + 1))
