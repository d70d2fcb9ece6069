"""Scales and offsets by weighted least squares, stored in two levels, as in k-quants."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ptq.block_methods.base import Affine, OffsetQuantizer, normal, turned
from ptq.block_methods.hqq import ends
from ptq.numerics.affine import QParams
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.block_tensor import SUPER_BLOCK, BlockTensor, TwoLevel, spread
from ptq.numerics.blocks import BlockFormat

#: Ranges that are tried, in tenths of a step around the full one, as in llama.cpp.
_TRIES = 20


class KquantBlocks(OffsetQuantizer, frozen=True, tag="kquant"):
    """Fit scale and offset of each block to its codes, and keep both in few bits.

    For ``i = 0..20``, codes are those of the step ``(max - min) / (2^b - 2 + i / 10)`` from ``min``
    up; scale and offset then solve the least squares of ``sum v (s q + m - w)^2`` with the weights
    ``v = sqrt(mean w^2) + |w|``, and the best of all is kept. Scales and offsets then become
    ``scale_bits`` bits each, in super-blocks of 256 weights with a float16 step for either, and
    codes are rounded anew. ``scale_bits=0`` keeps them in float32.

    Departs from llama.cpp by offsets of either sign, measured from the middle code: of a weight
    spread about 0 they are then small, and lose less in few bits.
    """

    paper: ClassVar[str] = (
        "Kawrakow, k-quants, llama.cpp pull request 1684, 2023 (make_qkx2_quants)"
    )
    good_for: ClassVar[str] = (
        "the first to try with 4 and 3 bits: a small file, and from 1 dB below to 6 above mse "
        "of 4 bits"
    )
    widths: ClassVar[tuple[int, ...]] = (8, 6, 5, 4, 3, 2)
    scale_bits: Literal[0, 4, 6, 8] = 6

    def solve(self, blocks: F32, counted: F32, bits: int) -> Affine:
        """Return codes, scales and offsets; see `OffsetQuantizer.solve`."""
        most, middle = (1 << bits) - 1, 1 << (bits - 1)
        lo, hi = ends(blocks, counted)
        w = blocks.astype(np.float64)
        mean = (w * w).sum(axis=1) / counted.sum(axis=1)
        worth = (np.sqrt(mean)[:, None] + np.abs(w)) * counted
        scale, low = (hi - lo) / most, lo
        codes = _codes(w, scale, low, most)
        least = _error(w, worth, codes, scale, low)
        for i in range(_TRIES + 1):
            step = (hi - lo) / (most - 1 + 0.1 * i)
            tried = _codes(w, step, lo, most)
            s, m, solved = fitted(w, worth, tried)
            error = _error(w, worth, tried, s, m)
            better = solved & (error < least)
            scale, low = np.where(better, s, scale), np.where(better, m, low)
            least = np.where(better, error, least)
            codes = np.where(better[:, None], tried, codes)
        even = hi == lo  # all codes in the middle, and the offset is the weight
        codes = np.where(even[:, None], middle, codes)
        found = normal(scale)
        return Affine(codes, found, np.where(even, lo, low + middle * found.astype(np.float64)))

    def stored(self, rows: F32, found: BlockTensor, layout: BlockFormat) -> BlockTensor:
        """Return what was found with scales and offsets in few bits, and codes rounded anew."""
        if not self.scale_bits or not found.codes.size:
            return turned(found, layout)
        assert found.offset is not None
        old, each = found.qparams, max(1, SUPER_BLOCK // layout.block_size)
        # what a block of equal weights has for a scale must not set the step of its neighbours
        even = found.codes == old.qtype.middle
        alive = ~np.logical_and.reduceat(
            even, np.arange(0, rows.shape[1], layout.block_size), axis=1
        )
        scales = TwoLevel.of(np.where(alive, old.scale, 0.0), self.scale_bits, each, signed=False)
        offsets = TwoLevel.of(found.offset, self.scale_bits, each, signed=True)
        scale, offset = scales.values(), offsets.values()
        step = np.where(scale > 0, scale, np.float32(1))
        params = QParams(step, old.zero_point, old.qtype, 1, layout.block_size)
        steps = (rows - spread(offset, params, rows.shape)) / spread(step, params, rows.shape)
        codes = np.clip(np.rint(steps) + old.qtype.middle, 0, old.qtype.qmax)
        # of a scale of 0, the value is the offset whatever the code
        codes = np.where(spread(scale > 0, params, rows.shape), codes, old.qtype.middle)
        tensor = BlockTensor(
            codes.astype(old.qtype.storage),
            params,
            offset=offset,
            stored_scale=scales,
            stored_offset=offsets,
        )
        return turned(tensor, layout)


def fitted(w: F64, worth: F64, codes: AnyArray) -> tuple[F64, F64, AnyArray]:
    """Return the scales and offsets of the least weighted squared error, and where there are any.

    Closed form of the two unknowns of each row. There are none where all codes of a row are the
    same, or where the scale would not be above 0.

    Args:
        w: shape ``(rows, weights)``.
        worth: how much each weight counts, 0 or more, in the same shape.
        codes: likewise.
    """
    one, q, qq = worth.sum(axis=1), (worth * codes).sum(axis=1), (worth * codes**2).sum(axis=1)
    x, xq = (worth * w).sum(axis=1), (worth * w * codes).sum(axis=1)
    determinant = one * qq - q * q
    solved = determinant > 1e-12 * one * qq
    divisor = np.where(solved, determinant, 1.0)
    s, m = (one * xq - x * q) / divisor, (qq * x - q * xq) / divisor
    return s, m, solved & (s > 0)


def _codes(w: F64, scale: F64, low: F64, most: int) -> AnyArray:
    divisor = np.where(scale > 0, scale, 1.0)[:, None]
    return np.asarray(np.clip(np.rint((w - low[:, None]) / divisor), 0, most))


def _error(w: F64, worth: F64, codes: AnyArray, scale: F64, low: F64) -> F64:
    lost = codes * scale[:, None] + low[:, None] - w
    return np.asarray((worth * lost * lost).sum(axis=1))
