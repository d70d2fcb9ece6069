"""Levels that are powers of two, or of its root: fine near 0, coarse far out."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.calib.levels import Levels
from ptq.calib.nonuniform import NonUniformSolver, Points
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: Octaves below the top that 8 bits still tell apart.
_OCTAVES = 7

#: Shares of the largest value that are tried as the top.
_TOPS = np.linspace(0.1, 1.0, 46)

#: How many levels to an octave are tried.
_DENSITIES = (1, 2, 4)


class Log2Solver(NonUniformSolver, frozen=True, tag="log2"):
    """Levels ``top 2^(-k / per_octave)`` and 0: for values that gather near 0, as of softmax.

    Values go to the nearest level, and the top is that of least squared error. One level to an
    octave is what hardware multiplies by with shifts; two are the log-sqrt2 quantizer of RepQ-ViT,
    which has 15 levels of 4 bits. Codes of 8 bits hold 7 octaves below the top: levels below that
    are left out. Departs from the papers in rounding to the nearest value, not exponent.

    A tensor of both signs has half of the levels for each.

    Attributes:
        per_octave: how many; 0 for the one of least error of 1, 2 and 4.
    """

    paper: ClassVar[str] = (
        "Li et al., RepQ-ViT: Scale Reparameterization for Post-Training Quantization of Vision "
        "Transformers, ICCV 2023, section 3.3 (log-sqrt2); Miyashita et al., Convolutional Neural "
        "Networks using Logarithmic Data Representation, arXiv:1603.01025, 2016"
    )
    good_for: ClassVar[str] = (
        "softmax of few bits, 2 and 3 bits; with per_octave=1 hardware of shifts, 10 dB below "
        "mse at 4"
    )

    per_octave: Annotated[int, Meta(ge=0, le=8)] = 0

    def fitted(self, stats: TensorStats, points: Points, qtype: QType) -> Levels:
        """Return the levels of least error."""
        densities = (self.per_octave,) if self.per_octave else _DENSITIES
        most = max(-float(points.x[0]), float(points.x[-1]))
        tried = (
            self._with_top(points, share * most, density, qtype.bits)
            for density in densities
            for share in _TOPS
        )
        return min(tried, key=points.error)  # of equals the first

    def _with_top(self, points: Points, top: float, density: int, bits: int) -> Levels:
        up, down = points.x[-1] > 0, points.x[0] < 0
        count = 2**bits - 1  # beside 0
        positive = (count + 1) // 2 if down else count
        signs: list[F64] = [np.zeros(1)]
        if up:
            signs.append(_powers(top, positive, density))
        if down:
            signs.append(-_powers(top, count - positive if up else count, density))
        return Levels.nearest(np.concatenate(signs))


def _powers(top: float, count: int, density: int) -> F64:
    exponents = np.arange(min(count, _OCTAVES * density + 1)) / density
    return np.asarray(top * 2.0**-exponents)
