"""How a quantized graph holds a float tensor: as it is, or as codes with a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import input_at, int_attribute
from ptq.graph.writer import CONTRIB, array_of
from ptq.numerics.tensor_sums import Codes

#: Codes that numpy has a type for; others are read as what DequantizeLinear makes of them.
CODES = frozenset({"uint8", "int8", "uint16", "int16"})

#: Operators that put out the codes that they read, or some of them; the scale stays.
_MOVES = frozenset(
    {"Clip", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "MaxPool"}
    | {"Pad", "ReduceMax", "ReduceMin", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze", "Identity"}
)


#: Where other kernels than DequantizeLinear have scale and zero point of their output, by operator.
_OUTPUT_AT = {
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QGemm": 7,
    "QLinearWhere": 7,
    "QLinearAveragePool": 3,
    "QLinearGlobalAveragePool": 3,
    "QLinearLeakyRelu": 3,
    "QLinearSigmoid": 3,
    "QLinearSoftmax": 3,
    "QLinearConcat": 0,
}


@dataclass(frozen=True, slots=True, eq=False)
class CodeParams(Codes):
    """What codes stand for, and whose QuantizeLinear writes them.

    Attributes:
        domain: of that operator: onnxruntime's own takes 16 bits in every opset.
    """

    domain: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Where the values of one float tensor are in a quantized graph.

    Attributes:
        tensor: the float tensor.
        value: the value of the quantized graph that its integer readers see: codes, or floats.
        params: what the codes stand for; ``None`` for floats.
        cut: the value at which the graph is cut so that readers get another model's tensor: the
            codes; where they are made of a float of that name by a QuantizeLinear, that float.
        shared: whether ``value`` are the codes of an earlier tensor too, with another scale.
    """

    tensor: str
    value: str
    params: CodeParams | None
    cut: str
    shared: bool = False


def is_quantizer(node: ir.Node | None) -> bool:
    """Whether the node is a QuantizeLinear, standard or onnxruntime's."""
    return _is(node, "QuantizeLinear")


def is_dequantizer(node: ir.Node | None) -> bool:
    """Whether the node is a DequantizeLinear, standard or onnxruntime's."""
    return _is(node, "DequantizeLinear")


def params_of(node: ir.Node) -> CodeParams | None:
    """Return what a QuantizeLinear writes or a DequantizeLinear reads.

    ``None`` where that is not constant, per block, or of codes that numpy has no type for.
    """
    if int_attribute(node, "block_size", 0):
        return None
    axis = int_attribute(node, "axis", 1)
    zero_point = input_at(node, 2)
    fallback = _codes_type(node) if zero_point is None else None
    return _params(node.inputs[1], zero_point, axis=axis, domain=node.domain, dtype=fallback)


def params_of_codes(codes: ir.Value, scale: str = "") -> CodeParams | None:
    """Return what codes stand for.

    Several tensors may have the same codes, each with its own scale, and a kernel may write codes
    with another scale than they are read with.

    Args:
        codes: the value.
        scale: the name of the scale, if there is a choice; else readers are believed first.
    """
    found = [known for known in (*_read_as(codes), *_made_as(codes)) if known[1] is not None]
    named = (params for name, params in found if name == scale)
    return next(named, found[0][1] if found else None)


_Named = tuple[str, CodeParams | None]


def _read_as(codes: ir.Value) -> Iterator[_Named]:
    for node, index in codes.uses():
        if is_dequantizer(node) and index == 0:
            yield _name(node, 1), params_of(node)
        elif node.op_type in _OUTPUT_AT and index + 2 < len(node.inputs):
            yield _name(node, index + 1), _params(node.inputs[index + 1], node.inputs[index + 2])


def _made_as(codes: ir.Value) -> Iterator[_Named]:
    node = codes.producer()
    if node is None:
        return
    place = _OUTPUT_AT.get(node.op_type)
    if is_quantizer(node):
        yield _name(node, 1), params_of(node)
    elif place is not None:
        scale, zero_point = input_at(node, place), input_at(node, place + 1)
        yield _name(node, place), _params(scale, zero_point)
    elif node.domain == "" and node.op_type in _MOVES and node.inputs[0] is not None:
        yield "", params_of_codes(node.inputs[0])


def _name(node: ir.Node, index: int) -> str:
    value = input_at(node, index)
    return "" if value is None else value.name or ""


def _params(
    scale: ir.Value | None,
    zero_point: ir.Value | None,
    *,
    axis: int = 1,
    domain: str = "",
    dtype: np.dtype[np.generic] | None = None,
) -> CodeParams | None:
    scales, zeros = array_of(scale), array_of(zero_point)
    if scales is None or scales.dtype != np.float32 or (zero_point is not None and zeros is None):
        return None
    if zeros is None:
        zeros = np.zeros(scales.shape, dtype or np.dtype(np.uint8))
    if zeros.dtype.name not in CODES or zeros.size != scales.size or not scales.size:
        return None
    if scales.size == 1:
        return CodeParams(scales.reshape(()), zeros.reshape(()), None, domain)
    return CodeParams(scales.reshape(-1), zeros.reshape(-1), axis, domain)


def _codes_type(node: ir.Node) -> np.dtype[np.generic] | None:
    """Return the type of codes that have no zero point, as far as the graph says."""
    if is_quantizer(node):
        dtype = int_attribute(node, "output_dtype", 0)
        return ir.DataType(dtype).numpy() if dtype else None
    codes = node.inputs[0]
    maker = None if codes is None else codes.producer()
    if codes is not None and codes.dtype is not None:
        return codes.dtype.numpy()
    return _codes_type(maker) if maker is not None and is_quantizer(maker) else None


def _is(node: ir.Node | None, op_type: str) -> bool:
    return node is not None and node.op_type == op_type and node.domain in ("", CONTRIB)


def values_by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return what the graph is fed and what its nodes make, in order; no constants."""
    fed = [v for v in graph.inputs if not v.is_initializer()]
    made: Sequence[ir.Value] = [v for node in graph for v in node.outputs]
    return {v.name: v for v in (*fed, *made) if v.name}
