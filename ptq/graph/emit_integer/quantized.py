"""Read the quantized values around an operator: what it reads, and what becomes of its result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import (
    Array,
    constant,
    input_at,
    int_attribute,
    is_constant,
    is_op,
    only_user,
)
from ptq.numerics.affine import QParams, quantize
from ptq.numerics.qtype import QType

#: The codes that integer compute kernels take; 16-bit ones are only moved.
EIGHT_BIT = (ir.DataType.UINT8, ir.DataType.INT8)
SIXTEEN_BIT = (ir.DataType.UINT16, ir.DataType.INT16)

#: Which input of a kernel has the type of its output, where that is not the first.
_TYPED_BY = {"QLinearConcat": 1, "QLinearWhere": 1}


class UnfitError(Exception):
    """A node that a rule is for, and cannot fuse; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Params:
    """How codes stand for reals: the constants that Q or DQ refer to.

    Attributes:
        scale: float32, a scalar or one per channel.
        zero_point: of the same shape; ``None`` stands for zeros.
        dtype: of the codes.
        axis: the channel axis as it is written, or ``None`` per tensor.
    """

    scale: ir.Value
    zero_point: ir.Value | None
    dtype: ir.DataType
    axis: int | None

    @property
    def scales(self) -> Array:
        """The scale as an array."""
        array = constant(self.scale)
        assert array is not None
        return array

    @property
    def zeros(self) -> Array:
        """The zero point as an array."""
        array = constant(self.zero_point)
        return np.zeros(self.scales.shape, self.dtype.numpy()) if array is None else array

    def same(self, other: Params) -> bool:
        """Whether both are per tensor, and equal codes stand for equal reals."""
        return (
            self.axis is None
            and other.axis is None
            and self.dtype == other.dtype
            and self.scales.item() == other.scales.item()
            and self.zeros.item() == other.zeros.item()
        )

    def code_of(self, real: float) -> Array:
        """Return the code that a real number is rounded to, infinity included."""
        finite = np.asarray(np.clip(real, -3e38, 3e38), np.float32)
        qtype = QType(self.dtype.bitwidth, signed=self.dtype.is_signed())
        zero_point = self.zeros.reshape(()).astype(qtype.storage)
        codes = quantize(finite, QParams(self.scales.reshape(()), zero_point, qtype))
        return np.asarray(codes, self.dtype.numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """A value that an operator reads through DequantizeLinear.

    Attributes:
        codes: what DequantizeLinear reads.
        params: how it reads them.
        shared: whether something else reads the dequantized value, too.
    """

    codes: ir.Value
    params: Params
    shared: bool


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The QuantizeLinear that is all that reads what an operator puts out.

    Attributes:
        quantize: that node.
        params: how it writes codes.
        clips: the Relu and Clip between the two, in order.
        lo: the least value they let through.
        hi: the largest one.
    """

    quantize: ir.Node
    params: Params
    clips: tuple[ir.Node, ...]
    lo: float
    hi: float


def operand(value: ir.Value | None) -> Operand:
    """Return what a value was before DequantizeLinear.

    Raises:
        UnfitError: it does not come from there, or its codes are none that a kernel reads.
    """
    node = None if value is None else value.producer()
    if value is None or node is None or not is_op(node, "DequantizeLinear"):
        kind = "constant" if is_constant(value) else "operand"
        raise UnfitError(f"its {kind} '{'' if value is None else value.name}' is in float")
    codes = node.inputs[0]
    assert codes is not None
    return Operand(codes, _params(node, _codes_type(node)), shared=only_user(value) is None)


def result(value: ir.Value) -> Result | None:
    """Return what becomes of an operator's output, or ``None`` where it is wanted in float."""
    lo, hi, clips = -np.inf, np.inf, []
    while True:
        reader = only_user(value)
        producer = value.producer()
        # a body graph of an If or Loop may be the reader
        if reader is None or producer is None or reader.graph is not producer.graph:
            return None
        if reader.inputs[0] is not value:
            return None
        if is_op(reader, "QuantizeLinear"):
            break
        bounds = clip_bounds(reader)
        if bounds is None:
            return None
        lo, hi = (float(np.clip(end, *bounds)) for end in (lo, hi))
        clips.append(reader)
        value = reader.outputs[0]
    return Result(reader, quantizer_params(reader), tuple(clips), lo, hi)


def quantizer_params(node: ir.Node) -> Params:
    """Return how a QuantizeLinear writes codes.

    Raises:
        UnfitError: not as any kernel does.
    """
    return _params(node, _quantized_type(node))


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Return the range of a Relu or a Clip with constant bounds, or ``None``."""
    if is_op(node, "Relu"):
        return 0.0, np.inf
    if not is_op(node, "Clip"):
        return None
    bounds = [-np.inf, np.inf]
    for index in (1, 2):
        if input_at(node, index) is not None:
            array = constant(input_at(node, index))
            if array is None or array.size != 1 or array.dtype != np.float32:
                return None
            bounds[index - 1] = float(array.item())
    return bounds[0], bounds[1]


def _params(node: ir.Node, dtype: ir.DataType) -> Params:
    scale, zero_point = node.inputs[1], input_at(node, 2)
    scales = constant(scale)
    if scale is None or scales is None:
        raise UnfitError("its scale is computed at run time")
    if scales.dtype != np.float32:
        raise UnfitError(f"its scale is {scales.dtype}, not float32")
    if zero_point is not None and constant(zero_point) is None:
        raise UnfitError("its zero point is computed at run time")
    if int_attribute(node, "block_size", 0):
        raise UnfitError("its scales are per block")
    axis = None if scales.size == 1 else int_attribute(node, "axis", 1)
    return Params(scale, zero_point, dtype, axis)


def _quantized_type(node: ir.Node) -> ir.DataType:
    """Return what a QuantizeLinear puts out."""
    zero_point = input_at(node, 2)
    if zero_point is not None and zero_point.const_value is not None:
        return zero_point.const_value.dtype
    return ir.DataType(int_attribute(node, "output_dtype", 0) or ir.DataType.UINT8)


def _codes_type(node: ir.Node) -> ir.DataType:
    """Return what a DequantizeLinear reads; inner values have no types of their own here."""
    zero_point = input_at(node, 2)
    if zero_point is not None and zero_point.const_value is not None:
        return zero_point.const_value.dtype
    value = node.inputs[0]
    while value is not None:
        maker = value.producer()
        if value.const_value is not None:
            return value.const_value.dtype
        if value.dtype is not None:
            return value.dtype
        if maker is None:
            break
        if maker.op_type == "QuantizeLinear":
            return _quantized_type(maker)
        if maker.op_type == "Cast":
            return ir.DataType(int_attribute(maker, "to", 0))
        if maker.op_type == "DynamicQuantizeLinear":
            return ir.DataType.UINT8
        # whatever else makes codes makes the type that it reads
        value = input_at(maker, _TYPED_BY.get(maker.op_type, 0))
    raise UnfitError("the type of its codes is not known")
