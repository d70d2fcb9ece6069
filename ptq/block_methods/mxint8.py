"""MXINT8: integers of 8 bits and a power of two for each block."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.block_methods.base import BlockQuantizer, in_rows, turned
from ptq.block_methods.microscaling import MX_PAPER, shared_scale
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.arrays import AnyArray
from ptq.numerics.block_tensor import BlockTensor, spread
from ptq.numerics.blocks import BlockFormat, filled_blocks
from ptq.numerics.qtype import QType


class Mxint8Blocks(BlockQuantizer, frozen=True, tag="mxint8"):
    """Round to 64ths up to 127 of them, times a power of two."""

    paper: ClassVar[str] = MX_PAPER
    good_for: ClassVar[str] = "8 bits in a file a tenth smaller than that of mse, at 1.5 dB less"
    widths: ClassVar[tuple[int, ...]] = (8,)

    def quantize(self, w: AnyArray, layout: BlockFormat) -> QTensor:
        """Return the codes of a weight; see `BlockQuantizer.quantize`."""
        rows, qtype = in_rows(w, layout), QType(8, signed=False)
        blocks = filled_blocks(rows, layout.block_size)
        shared = shared_scale(blocks.reshape(-1, layout.block_size), 0, 6)
        scale = np.ldexp(np.float32(1), shared).reshape(blocks.shape[:2])
        zero_point = np.full(scale.shape, qtype.middle, qtype.storage)
        params = QParams(scale, zero_point, qtype, 1, layout.block_size)
        # a power of two divides exactly
        steps = np.rint(rows / spread(scale, params, rows.shape))
        codes = (np.clip(steps, -127, 127) + qtype.middle).astype(qtype.storage)
        return turned(BlockTensor(codes, params, stored_scale="exponents"), layout)
