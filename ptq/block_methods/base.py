"""What a block quantizer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec
import numpy as np

from ptq.errors import ConfigError
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.arrays import F32, F32_TINY, AnyArray, finite
from ptq.numerics.block_tensor import BlockTensor, Stored
from ptq.numerics.blocks import CHUNK, BlockFormat, filled_blocks
from ptq.numerics.qtype import INT8, QType


class BlockQuantizer(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="method", forbid_unknown_fields=True
):
    """A block quantizer; its fields are its options, its tag is its name.

    Attributes:
        paper: where the method comes from.
        good_for: when to take it, in a few words, as `ptq methods` says it.
        widths: the bits of a code that it has.
        zero_points: whether blocks can have integer zero points; then they need not.
        offsets: whether blocks have real offsets in their place.
        floats: whether codes are small floats, which no kernel multiplies: such weights are
            unpacked when the model is loaded, and rounded to nearest only.
    """

    paper: ClassVar[str] = ""
    good_for: ClassVar[str] = ""
    widths: ClassVar[tuple[int, ...]] = ()
    zero_points: ClassVar[bool] = False
    offsets: ClassVar[bool] = False
    floats: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name of the method."""
        return str(self.__struct_config__.tag)

    def quantize(self, w: AnyArray, layout: BlockFormat) -> QTensor:
        """Return the codes of a weight.

        Args:
            w: a float weight, a matrix.
            layout: the blocks, and how many bits a code has.

        Raises:
            CalibrationError: a weight is NaN or infinite.
        """
        raise NotImplementedError

    @classmethod
    def has_width(cls, bits: int) -> bool:
        """Whether the method has codes of so many bits."""
        return bits in cls.widths

    @classmethod
    def require_width(cls, bits: int) -> None:
        """Refuse a width that the method has no codes of.

        Raises:
            ConfigError: it has none of this one.
        """
        if not cls.has_width(bits):
            *others, last = (str(width) for width in cls.widths)
            has = f"{', '.join(others)} or {last}" if others else last
            raise ConfigError(
                f"block quantizer '{cls.__struct_config__.tag}' has {has} bits, not {bits}; choose "
                "another --bits, or another --weight-method"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Blocks as ``(code - middle) * scale + offset``, where the middle is ``2^(bits-1)``.

    Attributes:
        codes: from 0 to ``2^bits - 1``, shape ``(blocks, weights)``.
        scale: above 0, shape ``(blocks,)``.
        offset: likewise.
    """

    codes: AnyArray
    scale: AnyArray
    offset: AnyArray


class OffsetQuantizer(BlockQuantizer, frozen=True):
    """A block quantizer whose blocks have real offsets."""

    offsets: ClassVar[bool] = True

    def solve(self, blocks: F32, counted: F32, bits: int) -> Affine:
        """Return codes, scales and offsets.

        Args:
            blocks: shape ``(blocks, weights)``, finite; zeros fill up short ones.
            counted: 1 where there is a weight, 0 where a block is filled up; in the same shape.
            bits: of a code.
        """
        raise NotImplementedError

    def quantize(self, w: AnyArray, layout: BlockFormat) -> QTensor:
        """Return the codes of a weight; see `BlockQuantizer.quantize`."""
        rows = in_rows(w, layout)
        size, bits = layout.block_size, layout.qtype.bits
        blocks = filled_blocks(rows, size)
        counted = filled_blocks(np.ones((1, rows.shape[1]), np.float32), size)
        shape, step = blocks.shape[:2], max(1, CHUNK // max(1, blocks.shape[1] * size))
        codes = np.empty(blocks.shape, np.uint8)
        scale, offset = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for start in range(0, len(blocks), step):
            part = blocks[start : start + step]
            mask = np.broadcast_to(counted, part.shape).reshape(-1, size)
            found = self.solve(part.reshape(-1, size), mask, bits)
            each = part.shape[:2]
            codes[start : start + step] = found.codes.reshape(part.shape)
            scale[start : start + step] = found.scale.reshape(each)
            offset[start : start + step] = found.offset.reshape(each)
        flat = codes.reshape(len(rows), blocks.shape[1] * size)[:, : rows.shape[1]]
        return self.stored(rows, BlockTensor(flat, params_of(scale, layout), offset=offset), layout)

    def stored(self, rows: F32, found: BlockTensor, layout: BlockFormat) -> BlockTensor:
        """Return what was found, as it is stored, along the axis of the weight.

        Args:
            rows: the weight, the blocks along axis 1.
            found: likewise.
            layout: the blocks.
        """
        del rows
        return turned(found, layout)


class LevelQuantizer(BlockQuantizer, frozen=True):
    """A block quantizer whose codes are indices into one table of levels, integers of int8.

    Attributes:
        stored_scale: how the file has the scales.
    """

    stored_scale: ClassVar[Stored] = None

    def table(self, bits: int) -> AnyArray:
        """Return the levels in steps of the scale, ascending, from -127 to 127."""
        raise NotImplementedError

    def solve(self, blocks: F32, bits: int) -> tuple[AnyArray, AnyArray]:
        """Return levels, and scales that are normal positive numbers.

        Args:
            blocks: shape ``(blocks, weights)``, finite; zeros fill up short ones.
            bits: of an index.
        """
        raise NotImplementedError

    def quantize(self, w: AnyArray, layout: BlockFormat) -> QTensor:
        """Return the codes of a weight; see `BlockQuantizer.quantize`."""
        rows, size = in_rows(w, layout), layout.block_size
        blocks = filled_blocks(rows, size)
        flat = blocks.reshape(-1, size)
        codes, scale = np.empty(flat.shape, np.int8), np.empty(len(flat), np.float32)
        step = max(1, CHUNK // size)
        for start in range(0, len(flat), step):
            part = slice(start, start + step)
            codes[part], scale[part] = self.solve(flat[part], layout.qtype.bits)
        scales = scale.reshape(blocks.shape[:2])
        params = QParams(scales, np.zeros(scales.shape, np.int8), INT8, 1, size)
        table = self.table(layout.qtype.bits).astype(np.int8)
        levels = np.broadcast_to(table, (*scales.shape, len(table)))
        kept = codes.reshape(len(rows), blocks.shape[1] * size)[:, : rows.shape[1]]
        return turned(BlockTensor(kept, params, levels, stored_scale=self.stored_scale), layout)


def in_rows(w: AnyArray, layout: BlockFormat) -> F32:
    """Return a matrix, finite, with its blocks along axis 1."""
    weight = finite(w)
    assert weight.ndim == 2
    return weight if layout.axis % 2 else weight.T


def params_of(scale: F32, layout: BlockFormat) -> QParams:
    """Return the parameters of blocks along axis 1, the zero points in the middle of the grid."""
    qtype = QType(layout.qtype.bits, signed=False)
    zero_point = np.full(scale.shape, qtype.middle, qtype.storage)
    return QParams(scale, zero_point, qtype, 1, layout.block_size)


def turned(tensor: BlockTensor, layout: BlockFormat) -> BlockTensor:
    """Return a tensor with blocks along axis 1 as one of the layout."""
    if layout.axis % 2:
        return tensor
    old = tensor.qparams
    params = QParams(
        np.ascontiguousarray(old.scale.T),
        np.ascontiguousarray(old.zero_point.T),
        old.qtype,
        0,
        old.block_size,
    )
    levels = None if tensor.levels is None else tensor.levels.transpose(1, 0, 2)
    offset = None if tensor.offset is None else np.ascontiguousarray(tensor.offset.T)
    return BlockTensor(
        np.ascontiguousarray(tensor.codes.T),
        params,
        levels,
        offset=offset,
        stored_scale=tensor.stored_scale,
        stored_offset=tensor.stored_offset,
    )


def normal(scale: AnyArray) -> AnyArray:
    """Return scales as float32 that are normal positive numbers: 1 where one is 0."""
    found = np.where(scale > 0, np.maximum(scale, F32_TINY), 1.0)
    return np.asarray(found, np.float32)
