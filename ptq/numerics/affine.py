"""The affine map between reals and codes, bit for bit as onnxruntime computes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ptq.errors import CalibrationError
from ptq.numerics.arrays import F32, F32_MAX, F32_TINY, F64, AnyArray
from ptq.numerics.qtype import QType


@dataclass(frozen=True, slots=True, eq=False)
class QParams:
    """Scale and zero point of one tensor.

    Attributes:
        scale: float32, shape ``()`` per tensor or ``(channels,)`` per channel; blocked, the rank
            of the tensor, its ``axis`` divided by ``block_size``, rounded up. All are normal
            positive numbers.
        zero_point: codes in ``qtype.storage``, same shape as ``scale``.
        qtype: the grid.
        axis: the channel axis, or ``None`` per tensor.
        block_size: how many neighbours along ``axis`` share a scale, or ``None``.

    Raises:
        CalibrationError: a scale is not a normal positive number.
        ValueError: shapes or types do not agree; a mistake of the caller.
    """

    scale: F32
    zero_point: AnyArray
    qtype: QType
    axis: int | None = None
    block_size: int | None = None

    def __post_init__(self) -> None:
        scale, zero_point = self.scale, self.zero_point
        if scale.dtype != np.float32 or zero_point.dtype != self.qtype.storage:
            raise ValueError(f"qparams of {self.qtype} hold {scale.dtype} and {zero_point.dtype}")
        if scale.shape != zero_point.shape:
            raise ValueError(f"scale {scale.shape} and zero point {zero_point.shape} disagree")
        if (self.axis is None) != (scale.ndim == 0) or (scale.ndim > 1 and self.block_size is None):
            raise ValueError(f"scale of shape {scale.shape} does not fit axis {self.axis}")
        if not np.all((scale >= F32_TINY) & (scale <= F32_MAX)):
            raise CalibrationError("a scale is zero, subnormal or not finite; check the range")
        if not np.all((zero_point >= self.qtype.qmin) & (zero_point <= self.qtype.qmax)):
            raise ValueError(f"a zero point lies outside of {self.qtype}")

    def range(self) -> tuple[F32, F32]:
        """Return the smallest and the largest value that the codes represent, finite float32."""
        scale = self.scale.astype(np.float64)
        zero_point = self.zero_point.astype(np.float64)
        lo = np.maximum((self.qtype.qmin - zero_point) * scale, -F32_MAX)
        hi = np.minimum((self.qtype.qmax - zero_point) * scale, F32_MAX)
        return np.asarray(lo, np.float32), np.asarray(hi, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class QTensor:
    """A quantized tensor.

    Attributes:
        codes: the integers, in ``qparams.qtype.storage``.
        qparams: what they mean.
        levels: the only codes that there may be for each scale, ascending, of shape
            ``(*scale.shape, levels)``; ``None`` if all of the grid.
        free: whether as many other levels would do as well, as those of k-means do; the levels of
            binary or ternary weights, and of powers of two, stay in proportion.
    """

    codes: AnyArray
    qparams: QParams
    levels: AnyArray | None = None
    free: bool = False

    @property
    def bits(self) -> int:
        """How many bits tell a code from the others that there may be."""
        if self.levels is None:
            return self.qparams.qtype.bits
        return max(1, int(self.levels.shape[-1] - 1).bit_length())

    def dequantize(self) -> F32:
        """Return the real values that the codes stand for."""
        return dequantize(self.codes, self.qparams)


def quantize(x: AnyArray, qparams: QParams) -> AnyArray:
    """Return the codes of ``x``, as QuantizeLinear of onnxruntime does, to the bit.

    Divides in float32, rounds half to even, adds the zero point, saturates. Infinity saturates;
    NaN gives the smallest code, as in onnxruntime.
    """
    scale, zero_point = per_element(qparams, x.shape)
    offset = zero_point.astype(np.float32)  # exact: at most 16 bits
    # A quotient that overflows is an infinity, which saturates.
    with np.errstate(over="ignore", invalid="ignore"):
        codes: F32 = np.asarray(np.divide(x, scale, dtype=np.float32))
    np.rint(codes, out=codes)
    # fmax, unlike maximum, answers its other argument for NaN.
    np.fmax(codes, qparams.qtype.qmin - offset, out=codes)
    np.fmin(codes, qparams.qtype.qmax - offset, out=codes)
    codes += offset
    return codes.astype(qparams.qtype.storage)


def dequantize(codes: AnyArray, qparams: QParams) -> F32:
    """Return ``(codes - zero_point) * scale`` in float32, as DequantizeLinear does."""
    scale, zero_point = per_element(qparams, codes.shape)
    steps = np.subtract(codes, zero_point, dtype=np.int32).astype(np.float32)
    with np.errstate(over="ignore"):
        return np.asarray(steps * scale)


def fake_quantize(x: AnyArray, qparams: QParams) -> F32:
    """Return ``x`` rounded to what the codes can represent, float32."""
    return dequantize(quantize(x, qparams), qparams)


def qparams_from_range(
    lo: ArrayLike, hi: ArrayLike, qtype: QType, *, symmetric: bool, axis: int | None = None
) -> QParams:
    """Return the scale and zero point that cover the range ``lo .. hi`` and zero.

    Zero is exactly representable. A symmetric grid has its zero point in the middle and covers
    the larger of ``|lo|`` and ``|hi|``; code ``-2^(b-1)`` is left to values beyond the range.

    * ``lo == hi == 0`` gives scale 1 and the zero point nearest to code 0.
    * A scale is at least the smallest normal float32, 2^-126, since runtimes may flush smaller
      numbers to zero: then a tensor below about 1e-38 loses precision.
    * A scale is at most such that every code stays finite when dequantized: then a range that
      reaches to within 1 % of the largest float32 is cut by so much.

    Args:
        lo: lower end, scalar or one value for each channel; above 0 it is taken as 0.
        hi: upper end, likewise; below 0 it is taken as 0.
        qtype: the grid.
        symmetric: whether the zero point is in the middle of the grid.
        axis: the channel axis, if ``lo`` and ``hi`` are arrays.

    Raises:
        CalibrationError: an end is not finite, or ``lo > hi``.

    Reference: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference",
    arXiv:1806.08342, section 2; the scale is rounded to float32 before the zero point is found.
    """
    low, high = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        raise CalibrationError("the range is not finite; check the data for NaN and infinity")
    if np.any(low > high):
        raise CalibrationError("the range is empty: its lower end is above its upper end")
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if symmetric:
        zero_point = np.full(low.shape, float(qtype.middle))
        # The one positive code of a 1-bit grid is none at all; its step is then the bound itself.
        exact = np.maximum(-low, high) / max(qtype.qmax - qtype.middle, 1)
        scale = _float32_scale(exact, zero_point, qtype)
    else:
        exact = (high - low) / (qtype.qmax - qtype.qmin)
        positive = np.where(exact > 0, exact, 1.0)
        rounded = np.asarray(np.clip(positive, F32_TINY, F32_MAX), np.float32).astype(np.float64)
        zero_point = np.clip(np.rint(qtype.qmin - low / rounded), qtype.qmin, qtype.qmax)
        zero_point = np.where(exact > 0, zero_point, 0.0)
        scale = _float32_scale(exact, zero_point, qtype)
    return QParams(scale, np.asarray(zero_point).astype(qtype.storage), qtype, axis)


def _float32_scale(exact: F64, zero_point: F64, qtype: QType) -> F32:
    """Round a scale to float32: 1 for 0, and within the bounds that keep arithmetic finite."""
    widest = np.maximum(qtype.qmax - zero_point, zero_point - qtype.qmin)
    most = np.nextafter(np.asarray(F32_MAX / widest, np.float32), np.float32(0))
    scale = np.asarray(np.clip(exact, F32_TINY, F32_MAX), np.float32)
    return np.asarray(np.where(exact > 0, np.minimum(scale, most), np.float32(1.0)), np.float32)


def qparams_power_of_two(
    exponent: int | AnyArray, qtype: QType, *, axis: int | None = None
) -> QParams:
    """Return scale ``2^-exponent`` and the middle of the grid as zero point (QCode).

    Args:
        exponent: the QCode, an integer or one for each channel; see `exponent_limits`.
        qtype: the grid; its zero point is 0, or 2^(bits-1) if it is unsigned.
        axis: the channel axis, if ``exponent`` is an array.

    Raises:
        CalibrationError: the exponent is outside of `exponent_limits`.
    """
    n = np.asarray(exponent)
    least, most = exponent_limits(qtype)
    if np.any(n < least) or np.any(n > most):
        raise CalibrationError(
            f"a power-of-two scale of 2^{-int(np.min(n))} does not fit float32; "
            "rescale the tensor or leave it in float"
        )
    scale = np.asarray(np.ldexp(np.ones(n.shape, np.float32), -n.astype(np.int32)))
    zero_point = np.full(n.shape, qtype.middle, qtype.storage)
    return QParams(scale, zero_point, qtype, axis)


def exponent_limits(qtype: QType) -> tuple[int, int]:
    """Return the least and the largest QCode of which every code is a finite normal float32."""
    return qtype.bits - 128, 126


def exponent_of_range(lo: float, qtype: QType) -> int:
    """Return the ``n`` of which ``lo == -2^(bits-1) * 2^-n``, the lower end of a QCode range.

    Raises:
        CalibrationError: ``lo`` is not such an end.
    """
    mantissa, exponent = math.frexp(-lo)
    if mantissa != 0.5:
        raise CalibrationError(f"{lo} is not minus a power of two; the range is not a QCode range")
    return qtype.bits - exponent


def per_element(qparams: QParams, shape: tuple[int, ...]) -> tuple[AnyArray, AnyArray]:
    """Return scale and zero point in shapes that broadcast against a tensor of this shape."""
    scale, zero_point, axis = qparams.scale, qparams.zero_point, qparams.axis
    if axis is None:
        return scale, zero_point
    axis %= len(shape)
    if qparams.block_size is not None:
        kept = (*(slice(None),) * axis, slice(shape[axis]))
        return (
            np.repeat(scale, qparams.block_size, axis)[kept],
            np.repeat(zero_point, qparams.block_size, axis)[kept],
        )
    if scale.shape != (shape[axis],):
        raise ValueError(f"{scale.shape[0]} scales for axis {axis} of a tensor of shape {shape}")
    spread = [1] * len(shape)
    spread[axis] = -1
    return scale.reshape(spread), zero_point.reshape(spread)
