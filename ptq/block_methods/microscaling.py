"""What the microscaling formats (MX) have in common: a power of two that a block shares."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.block_methods.base import LevelQuantizer
from ptq.numerics.arrays import F32, AnyArray
from ptq.numerics.block_tensor import Stored
from ptq.numerics.minifloat import MiniFloat, shared_exponent

#: Scales are normal numbers of float32 and leave room for what they multiply.
_LEAST, _MOST = -126, 100

MX_PAPER = (
    "Open Compute Project, OCP Microscaling Formats (MX) Specification, version 1.0, 2023, "
    "sections 5.3 and 6.3"
)


class MicroscalingBlocks(LevelQuantizer, frozen=True):
    """Elements of a small float format that are integers of int8 times a power of two.

    Attributes:
        element: the format.
        shift: the power; elements are multiples of ``2^-shift``.
    """

    paper: ClassVar[str] = MX_PAPER
    stored_scale: ClassVar[Stored] = "exponents"
    element: ClassVar[MiniFloat]
    shift: ClassVar[int]

    def table(self, bits: int) -> AnyArray:
        """Return the elements as integers; see `LevelQuantizer.table`."""
        del bits
        sizes = np.ldexp(self.element.magnitudes(), self.shift)
        return np.concatenate([-sizes[:0:-1], sizes])

    def solve(self, blocks: F32, bits: int) -> tuple[AnyArray, AnyArray]:
        """Return elements and scales; see `LevelQuantizer.solve`."""
        del bits
        shared = shared_scale(blocks, self.element.emax, self.shift)
        steps = np.ldexp(blocks.astype(np.float64), -shared[:, None])
        codes = np.ldexp(self.element.round(np.ldexp(steps, -self.shift)), self.shift)
        return codes, np.ldexp(np.float32(1), shared)


def shared_scale(blocks: F32, emax: int, shift: int) -> AnyArray:
    """Return the exponents of the scales of blocks, for elements in steps of ``2^-shift``."""
    largest = np.abs(blocks).max(axis=1, initial=0.0).astype(np.float64)
    exponent = np.clip(shared_exponent(largest, emax) - shift, _LEAST, _MOST)
    return np.asarray(exponent, np.int32)
