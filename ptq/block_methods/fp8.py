"""Floats of 8 bits."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ptq.block_methods.base import BlockQuantizer, in_rows, normal
from ptq.block_methods.microscaling import MX_PAPER, shared_scale
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.arrays import F32, AnyArray
from ptq.numerics.block_tensor import FloatTensor, Stored, spread
from ptq.numerics.blocks import BlockFormat, filled_blocks
from ptq.numerics.minifloat import FLOATS, MiniFloat
from ptq.numerics.qtype import UINT8


class Fp8Blocks(BlockQuantizer, frozen=True, tag="fp8"):
    """Round to floats of 8 bits, in units of the largest weight of a block.

    ``e4m3`` (E4M3FN) reaches to 448 and has 3 bits of mantissa; ``e5m2`` to 57344, with 2.
    """

    paper: ClassVar[str] = "Micikevicius et al., FP8 Formats for Deep Learning, 2022, table 1"
    good_for: ClassVar[str] = (
        "exchange with hardware that has it: 6 to 8 dB below mse of 8 bits, and no kernel here"
    )
    widths: ClassVar[tuple[int, ...]] = (8,)
    floats: ClassVar[bool] = True
    stored_scale: ClassVar[Stored] = None
    format: Literal["e4m3", "e5m2"] = "e4m3"

    def scales(self, blocks: F32, form: MiniFloat) -> AnyArray:
        """Return the unit of each block, shape ``(blocks,)``."""
        return normal(np.abs(blocks).max(axis=1, initial=0.0) / form.largest)

    def quantize(self, w: AnyArray, layout: BlockFormat) -> QTensor:
        """Return the codes of a weight; see `BlockQuantizer.quantize`."""
        name = "float8e4m3fn" if self.format == "e4m3" else "float8e5m2"
        form, rows = FLOATS[name], in_rows(w, layout)
        blocks = filled_blocks(rows, layout.block_size)
        scale = self.scales(blocks.reshape(-1, layout.block_size), form).reshape(blocks.shape[:2])
        params = QParams(scale, np.zeros(scale.shape, np.uint8), UINT8, 1, layout.block_size)
        codes = form.encode(form.round(rows / spread(scale, params, rows.shape)))
        if layout.axis % 2 == 0:
            zero = np.zeros(scale.T.shape, np.uint8)
            params = QParams(np.ascontiguousarray(scale.T), zero, UINT8, 0, layout.block_size)
            codes = np.ascontiguousarray(codes.T)
        return FloatTensor(codes, params, form=name, stored_scale=self.stored_scale)


class Mxfp8Blocks(Fp8Blocks, frozen=True, tag="mxfp8"):
    """Round to floats of 8 bits, in units of a power of two that a block shares."""

    paper: ClassVar[str] = MX_PAPER
    good_for: ClassVar[str] = (
        "exchange with hardware that has it: 9 to 13 dB below mse of 8 bits, and no kernel here"
    )
    stored_scale: ClassVar[Stored] = "exponents"

    def scales(self, blocks: F32, form: MiniFloat) -> AnyArray:
        """Return the unit of each block, shape ``(blocks,)``."""
        return np.ldexp(np.float32(1), shared_scale(blocks, form.emax, 0))
