"""Floats of few bits: what they are, and how numbers are rounded to them.

References: Micikevicius et al., "FP8 Formats for Deep Learning", 2022, table 1; Open Compute
Project, "OCP Microscaling Formats (MX) Specification", version 1.0, 2023, section 5.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq.numerics.arrays import F32, F64, AnyArray


@dataclass(frozen=True, slots=True)
class MiniFloat:
    """A float format: a sign, an exponent, a mantissa, and subnormal numbers.

    Attributes:
        mantissa: its bits.
        least: the exponent of the least normal number.
        largest: the largest number; what is beyond it saturates.
        emax: the exponent of that number.
    """

    mantissa: int
    least: int
    largest: float
    emax: int

    def round(self, x: AnyArray) -> F64:
        """Return the nearest numbers of the format, of two as near the one of even mantissa."""
        wide = np.asarray(x, np.float64)
        _, exponent = np.frexp(wide)
        step = np.ldexp(1.0, np.maximum(exponent - 1, self.least) - self.mantissa)
        return np.asarray(np.clip(np.rint(wide / step) * step, -self.largest, self.largest))

    def magnitudes(self) -> F64:
        """Return all numbers from 0 up to the largest, in the order of their bits."""
        count = 1 << self.mantissa
        steps = np.arange(count * (self.emax - self.least + 2))
        exponent = np.maximum(steps // count, 1)
        whole = steps % count + np.where(steps >= count, count, 0)
        values = np.ldexp(whole.astype(np.float64), exponent - 1 + self.least - self.mantissa)
        return np.asarray(values[values <= self.largest])

    def encode(self, x: AnyArray) -> AnyArray:
        """Return the bits of numbers of the format, uint8: the sign is the highest of 8."""
        code = np.searchsorted(self.magnitudes(), np.abs(x))
        return np.asarray(code + np.where(np.signbit(x), 128, 0), np.uint8)

    def decode(self, codes: AnyArray) -> F32:
        """Return the numbers that bits stand for."""
        sizes = self.magnitudes()[codes & 127]
        return np.asarray(np.where(codes & 128, -sizes, sizes), np.float32)


E2M1 = MiniFloat(mantissa=1, least=0, largest=6.0, emax=2)
E2M3 = MiniFloat(mantissa=3, least=0, largest=7.5, emax=2)
E4M3 = MiniFloat(mantissa=3, least=-6, largest=448.0, emax=8)
E5M2 = MiniFloat(mantissa=2, least=-14, largest=57344.0, emax=15)

#: The formats of 8 bits by their names in ONNX.
FLOATS = {"float8e4m3fn": E4M3, "float8e5m2": E5M2}


def shared_exponent(largest: F64, emax: int) -> AnyArray:
    """Return the exponents of the powers of two that blocks share: of MX, section 6.3.

    Args:
        largest: the largest magnitude of each block.
        emax: the exponent of the largest number of the elements.

    Returns:
        Integers ``floor(log2 largest) - emax``; of a block of zeros, 0.
    """
    _, exponent = np.frexp(largest)
    return np.where(largest > 0, exponent - 1 - emax, 0)
