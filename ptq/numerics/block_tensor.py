"""Weights in blocks beyond scale and zero point: with real offsets, and scales in few bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.minifloat import FLOATS

#: Weights of a super-block, whose blocks have scales in few bits, as in the k-quants of llama.cpp.
SUPER_BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False)
class TwoLevel:
    """Numbers, one for each block, as codes of few bits and a step for each super-block.

    Attributes:
        codes: int16, of ``bits`` bits; the blocks are along the last axis.
        bits: 4, 6 or 8.
        signed: whether codes are from ``-(2^(bits-1) - 1)`` up, or from 0.
        steps: float16, the last axis of the codes divided by ``each``, rounded up; 0 or more.
        gain: a power of two, by which the steps are multiplied.
        each: how many blocks a super-block has.
    """

    codes: AnyArray
    bits: int
    signed: bool
    steps: AnyArray
    gain: np.float32
    each: int

    @classmethod
    def of(cls, numbers: F32 | F64, bits: int, each: int, *, signed: bool) -> TwoLevel:
        """Return the numbers rounded to nearest, the largest of each super-block within 2^-11.

        Args:
            numbers: shape ``(rows, blocks)``; 0 or more, unless they are signed.
            bits: 4, 6 or 8.
            each: how many blocks a super-block has.
            signed: whether some may be below 0.
        """
        rows, count = numbers.shape
        most = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
        filled = np.pad(np.asarray(numbers, np.float64), ((0, 0), (0, -count % each)))
        largest = np.abs(filled.reshape(rows, -1, each)).max(axis=2, initial=0.0)
        # float16 is exact to 2^-11 over 15 powers of two; the largest step comes to about 1
        _, exponent = np.frexp(largest.max(initial=0.0) / most or 1.0)
        gain = np.ldexp(np.float32(1), np.clip(int(exponent), -100, 100))
        steps = (largest / most / gain).astype(np.float16)
        spread = np.repeat(steps.astype(np.float64) * gain, each, axis=1)[:, :count]
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.where(spread > 0, np.rint(numbers / spread), 0.0)
        codes = np.clip(codes, -most if signed else 0, most).astype(np.int16)
        return cls(codes, bits, signed, steps, np.float32(gain), each)

    def values(self) -> F32:
        """Return the numbers that the codes stand for, in float32 as a runtime computes them."""
        steps = self.steps.astype(np.float32) * self.gain
        spread = np.repeat(steps, self.each, axis=-1)[..., : self.codes.shape[-1]]
        return np.asarray(self.codes.astype(np.float32) * spread, np.float32)


#: How scales or offsets are stored, if not as float32: see `TwoLevel`; or as exponents, all of
#: them powers of two.
Stored: TypeAlias = TwoLevel | Literal["exponents"] | None


@dataclass(frozen=True, slots=True, eq=False)
class BlockTensor(QTensor):
    """A weight in blocks whose values are ``(code - zero point) * scale + offset``.

    Attributes:
        offset: float32 in the shape of the scale, or ``None`` for none.
        stored_scale: how scales are stored; they are what that stands for.
        stored_offset: likewise.
    """

    offset: F32 | None = None
    stored_scale: Stored = None
    stored_offset: Stored = None

    def dequantize(self) -> F32:
        """Return the real values that the codes stand for, each step in float32."""
        scaled = QTensor.dequantize(self)
        if self.offset is None:
            return scaled
        return np.asarray(scaled + spread(self.offset, self.qparams, scaled.shape), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FloatTensor(QTensor):
    """A weight in blocks whose codes are small floats, to be multiplied by a scale.

    Attributes:
        form: the name of the format in `ptq.numerics.minifloat.FLOATS`; codes are its bits.
        stored_scale: how scales are stored.
    """

    form: str = "float8e4m3fn"
    stored_scale: Stored = None

    def dequantize(self) -> F32:
        """Return the real values that the codes stand for."""
        values = FLOATS[self.form].decode(self.codes)
        scale = spread(self.qparams.scale, self.qparams, values.shape)
        return np.asarray(values * scale, np.float32)


def spread(numbers: AnyArray, params: QParams, shape: tuple[int, ...]) -> AnyArray:
    """Return numbers of blocks, one for each weight of a tensor of this shape."""
    assert params.axis is not None and params.block_size is not None
    axis = params.axis % len(shape)
    kept = (*(slice(None),) * axis, slice(shape[axis]))
    return np.asarray(np.repeat(numbers, params.block_size, axis)[kept])


def offset_of(tensor: QTensor) -> F32 | None:
    """Return what is added to the values of each block, if anything is."""
    return tensor.offset if isinstance(tensor, BlockTensor) else None


def with_codes(tensor: QTensor, codes: AnyArray, scale: F32) -> QTensor:
    """Return a tensor with other codes and scales; its offsets change as their scales do."""
    params = replace(tensor.qparams, scale=scale)
    if not isinstance(tensor, BlockTensor):
        return replace(tensor, codes=codes, qparams=params)
    offset = tensor.offset
    if offset is not None and not np.array_equal(scale, tensor.qparams.scale):
        offset = np.asarray(offset * (scale.astype(np.float64) / tensor.qparams.scale), np.float32)
    return replace(tensor, codes=codes, qparams=params, offset=offset)


def keeps_scales(tensor: QTensor) -> bool:
    """Whether scales cannot be changed one by one, for how they are stored."""
    return getattr(tensor, "stored_scale", None) is not None
