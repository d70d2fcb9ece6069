"""Sums over a tensor and what a quantized model has in its place, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq.errors import VerificationError
from ptq.numerics.arrays import F32, AnyArray
from ptq.numerics.metrics import ErrorSums

#: Values summed up at once: few enough for their float64 copies to stay in cache, and enough for
#: threads not to wait for one another (with blocks of 8192, four take twice as long as one).
_BLOCK = 1 << 17

#: Half a step, and a little: the least or largest value of all is often just there, by rounding of
#: the zero point, and many pixels have it.
_HALF = 0.501


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """What codes stand for, ready to be looked up.

    Attributes:
        scale: float32, shape ``()``, or ``(channels,)`` along ``axis``.
        zero_point: of the type of the codes, same shape.
        axis: the channel axis, or ``None`` per tensor.
    """

    scale: F32
    zero_point: AnyArray
    axis: int | None = None

    def dequantize(self, codes: AnyArray) -> AnyArray:
        """Return what onnxruntime's DequantizeLinear makes of codes, as float32."""
        scale, zero_point = self._spread(codes.ndim)
        steps = codes.astype(np.int32) - zero_point.astype(np.int32)
        return steps.astype(np.float32) * scale

    def limits(self) -> tuple[float, float] | None:
        """Return what no code is nearest to, below and above; ``None`` with a scale per channel.

        Half a step beyond the end codes, values round to them and lose no more than others.
        """
        if self.axis is not None:
            return None
        ends = np.iinfo(self.zero_point.dtype)
        zero, scale = float(self.zero_point), float(self.scale)
        return (ends.min - zero - _HALF) * scale, (ends.max - zero + _HALF) * scale

    def _spread(self, ndim: int) -> tuple[AnyArray, AnyArray]:
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


@dataclass(frozen=True, slots=True)
class TensorSums:
    """Sums over pairs of tensors; add them to pool.

    Attributes:
        errors: over the values that are finite in both.
        clipped: values of the reference that no code stands for.
        nonfinite: values that are NaN or infinite, and finite in the reference.
    """

    errors: ErrorSums = ErrorSums()  # noqa: RUF009 - it is frozen
    clipped: int = 0
    nonfinite: int = 0

    @classmethod
    def of(cls, ref: AnyArray, out: AnyArray, codes: Codes | None) -> TensorSums:
        """Return the sums over one pair.

        Args:
            ref: floats.
            out: floats, or integers if ``codes`` are given.
            codes: what the integers stand for.

        Raises:
            VerificationError: the shapes differ.
        """
        if ref.shape != out.shape:
            raise VerificationError(f"it has shape {out.shape}, and {ref.shape} in the float model")
        limits = codes.limits() if codes is not None else None
        table = None
        if codes is not None and codes.axis is not None:
            out = codes.dequantize(out)
        elif codes is not None:
            table = _table(codes, out.dtype)
            out = out.view(f"u{out.dtype.itemsize}")
        a, b, total = ref.reshape(-1), out.reshape(-1), cls()
        for start in range(0, a.size, _BLOCK):
            one, other = a[start : start + _BLOCK], b[start : start + _BLOCK]
            values = other if table is None else table.take(other)
            total += _block(one.astype(np.float64), values.astype(np.float64), limits)
        return total

    def __add__(self, other: TensorSums) -> TensorSums:
        return TensorSums(
            self.errors + other.errors,
            self.clipped + other.clipped,
            self.nonfinite + other.nonfinite,
        )


def _block(ref: AnyArray, out: AnyArray, limits: tuple[float, float] | None) -> TensorSums:
    errors, nonfinite, clipped = ErrorSums.of(ref, out), 0, 0
    if not np.isfinite(errors.noise):
        finite, wanted = np.isfinite(ref) & np.isfinite(out), np.isfinite(ref)
        errors = ErrorSums.of(ref[finite], out[finite])
        nonfinite = int(np.count_nonzero(wanted & ~finite))
    if limits is not None:
        clipped = int(np.count_nonzero((ref < limits[0]) | (ref > limits[1])))
    return TensorSums(errors, clipped, nonfinite)


def _table(codes: Codes, dtype: np.dtype[np.generic]) -> AnyArray:
    """Return what every code stands for, in the order of the codes' bits."""
    bits = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
    return codes.dequantize(bits.view(dtype))
