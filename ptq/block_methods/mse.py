"""The range of least squared error for each block."""

from __future__ import annotations

from typing import ClassVar

from ptq.block_methods.base import BlockQuantizer
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import AnyArray
from ptq.numerics.blocks import BlockFormat, quantize_blocks


class MseBlocks(BlockQuantizer, frozen=True, tag="mse"):
    """Shrink the range of each block where that makes its squared error less.

    Symmetric, or with integer zero points by ``--asymmetric-weights``.
    """

    paper: ClassVar[str] = (
        "Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, ICCV "
        "workshops 2019, section 3"
    )
    good_for: ClassVar[str] = (
        "the default, for any bits: nothing faster on few rows; with "
        "--asymmetric-weights 0.4 to 3.6 dB more below 8 bits"
    )
    widths: ClassVar[tuple[int, ...]] = (8, 6, 5, 4, 3, 2)
    zero_points: ClassVar[bool] = True

    def quantize(self, w: AnyArray, layout: BlockFormat) -> QTensor:
        """Return the codes of a weight; see `quantize_blocks`."""
        return quantize_blocks(w, layout)
