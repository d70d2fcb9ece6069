"""MXFP6: floats of 6 bits and a power of two for each block."""

from __future__ import annotations

from typing import ClassVar

from ptq.block_methods.microscaling import MicroscalingBlocks
from ptq.numerics.minifloat import E2M3, MiniFloat


class Mxfp6Blocks(MicroscalingBlocks, frozen=True, tag="mxfp6"):
    """Round to E2M3, of magnitudes up to 7.5 in steps of an eighth and more, times a power of two.

    Of the two element formats of MXFP6, weights gain more from a mantissa bit than from E3M2's
    exponent.
    """

    good_for: ClassVar[str] = (
        "exchange with hardware that has it: 6.25 bits a weight, from 2 dB below kquant of "
        "6 bits to 1 above"
    )
    widths: ClassVar[tuple[int, ...]] = (6,)
    element: ClassVar[MiniFloat] = E2M3
    shift: ClassVar[int] = 3
