"""Which values the codes of a written model's weights can stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import constant, is_op
from ptq.graph.quantized import read_quantized
from ptq.graph.types import Model
from ptq.graph.widen import widened
from ptq.graph.writer import label
from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.blocks import unpack
from ptq.numerics.qtype import QType

#: What the writers of the schemes call the codes of a weight, behind its label.
_CODES = ("quantized", "codes", "codes_packed")


@dataclass(frozen=True, slots=True, eq=False)
class WeightRange:
    """A float weight, and what its codes cover.

    Attributes:
        name: the weight in the float model.
        array: its values, float32.
        bits: width of the codes.
        lo: the least value that codes stand for, for each scale; float64.
        hi: the largest, likewise.
        symmetric: whether every zero point is the code in the middle.
        clip_share: share of the values outside of the range of their scale; ``None`` where the
            file does not say which values share one.
    """

    name: str
    array: AnyArray
    bits: int
    lo: F64
    hi: F64
    symmetric: bool
    clip_share: float | None


def weight_ranges(
    model: Model,
    written: Path,
    names: Iterable[str],
    *,
    bits: int,
    widths: Mapping[str, int] | None = None,
) -> Iterator[WeightRange]:
    """Yield the weights that are in codes in a model that `ptq` wrote.

    A weight is found by the name that its scales have from it. One that the file does not have in
    codes, because nothing read them any longer, is passed over.

    Args:
        model: the prepared float model.
        written: the quantized file.
        names: float weights.
        bits: width of codes that the file keeps packed into bytes.
        widths: of the static scheme, the bits of each weight.
    """
    quantized = widened(read_quantized(written))
    stored = {v.name or "": v for graph in quantized.graphs() for v in graph.initializers.values()}
    floats = {v.name or "": v for graph in model.graphs() for v in graph.initializers.values()}
    for name in names:
        array = constant(floats.get(name))
        for prefix in (label(name), label(f"{name}/table")):
            scale = constant(stored.get(f"{prefix}/scale"))
            codes = [stored[c] for part in _CODES if (c := f"{prefix}/{part}") in stored]
            if array is None or scale is None or not codes:
                continue
            zeros = constant(stored.get(f"{prefix}/zero_point"))
            qtype = _qtype(codes[0], bits)
            if name in (widths or {}) and zeros is not None:
                # kernels of 8 bits run them
                qtype = QType((widths or {})[name], signed=zeros.dtype.kind == "i")
            zero = _zero_points(zeros, scale, qtype)
            step = scale.astype(np.float64)
            lo, hi = (qtype.qmin - zero) * step, (qtype.qmax - zero) * step
            symmetric = bool(np.all(zero == qtype.middle))
            # half a step beyond the last code is still rounded to it, and is no clipping
            share = _clip_share(array, lo - step / 2, hi + step / 2, _axis(codes[0]))
            yield WeightRange(name, array, qtype.bits, lo, hi, symmetric, share)
            break


def _qtype(codes: ir.Value, bits: int) -> QType:
    """Return the grid; bytes may hold several codes of fewer bits, which are unsigned then."""
    assert codes.dtype is not None
    signed = codes.dtype.name.startswith("INT")
    width = codes.dtype.bitwidth
    return QType(bits if width == 8 and not signed else width, signed=signed)


def _zero_points(stored: AnyArray | None, scale: AnyArray, qtype: QType) -> F64:
    if stored is None:  # not stored, because it is the middle of the grid
        return np.full(scale.shape, float(qtype.middle))
    if stored.size not in (1, scale.size):
        stored = unpack(stored, qtype.bits, scale.shape[-1])
    zero: F64 = np.asarray(stored).astype(np.float64)
    return (
        zero.reshape(scale.shape) if zero.size == scale.size else np.full(scale.shape, zero.item())
    )


def _axis(codes: ir.Value) -> int | None:
    """Return the axis along which scales differ; only a DequantizeLinear without blocks says it."""
    for node, index in codes.uses():
        if index == 0 and is_op(node, "DequantizeLinear") and "block_size" not in node.attributes:
            found = node.attributes.get("axis")
            return 1 if found is None else int(found.as_int())
    return None


def _clip_share(array: AnyArray, lo: F64, hi: F64, axis: int | None) -> float | None:
    if array.size == 0:
        return 0.0
    if lo.size > 1:
        if axis is None or lo.ndim != 1 or array.shape[axis] != lo.size:
            return None
        shape = [1] * array.ndim
        shape[axis] = -1
        lo, hi = lo.reshape(shape), hi.reshape(shape)
    return float(np.mean((array < lo) | (array > hi)))
