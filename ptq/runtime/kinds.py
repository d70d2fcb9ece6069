"""Tell integer kernels from float ones in a graph that says little about its types.

onnxruntime writes its optimized graph without the types of inner values. What matters here can be
followed from the inputs: whether a value holds numbers, codes of 16 bits or fewer, or indices
(shapes, positions, conditions, sums of products in int32).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import onnx_ir as ir

from ptq.graph.passes.edit import int_attribute, subgraphs

Kind = Literal["float", "codes", "index"]

#: What a node is: work on integers or on floats, a conversion between them, or neither.
Work = Literal["integer", "float", "conversion", "neither"]

#: What turns numbers into codes and back.
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})

#: Integer kernels beside those called QLinear...: what they put out.
_INTEGER_KERNELS: dict[str, Kind] = {
    "ConvInteger": "index",
    "DynamicQuantizeLSTM": "float",
    "DynamicQuantizeMatMul": "float",
    "GatherBlockQuantized": "float",
    "MatMulInteger": "index",
    "MatMulIntegerToFloat": "float",
    "MatMulNBits": "float",
    "QAttention": "float",
    "QEmbedLayerNormalization": "float",
    "QGemm": "codes",
    "QMoE": "float",
}

#: Operators that are neither work nor worth a row: they carry shapes, constants and conditions, or
#: hold graphs of which the nodes are rows.
_PLUMBING = frozenset(
    {"Cast", "CastLike", "Constant", "ConstantOfShape", "Dropout", "Identity", "If", "Loop"}
    | {"Range", "Scan", "Shape", "Size"}
)

_TO_INDEX = frozenset(
    {"And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less"}
    | {"LessOrEqual", "NonMaxSuppression", "NonZero", "Not", "Or", "Shape", "Size", "Xor"}
)

#: Where the data is not the first input.
_DATA_INPUT = {"CastLike": 1, "OneHot": 2, "Where": 1}

_CODES = frozenset(
    {ir.DataType.INT2, ir.DataType.UINT2, ir.DataType.INT4, ir.DataType.UINT4}
    | {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}
)


class Kinds:
    """What every value of a graph holds, and so what every node does.

    Args:
        graph: its nodes in topological order; graphs inside it are read too.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._kinds: dict[int, Kind] = {}
        self._read(graph)

    def of(self, value: ir.Value | None) -> Kind:
        """Return what a value holds."""
        if value is None:
            return "float"
        if value.dtype is not None:
            return _kind(value.dtype)
        return self._kinds.get(id(value), "float")

    def work(self, node: ir.Node) -> Work:
        """Return what a node does."""
        if node.op_type in CONVERSIONS:
            return "conversion"
        if is_integer_kernel(node.op_type):
            return "integer"
        if node.op_type in _PLUMBING or not node.inputs:
            return "neither"
        kind = self.of(_data(node))
        if kind == "index":
            return "neither"
        return "integer" if kind == "codes" else "float"

    def _read(self, graph: ir.Graph) -> None:
        for node in graph:
            for inner in subgraphs(node):
                self._read(inner)
            for output, kind in zip(node.outputs, self._outputs(node), strict=True):
                self._kinds[id(output)] = kind

    def _outputs(self, node: ir.Node) -> list[Kind]:
        count = len(node.outputs)
        several: list[Kind] = []
        if node.op_type == "DynamicQuantizeLinear":
            several = ["codes", "float", "codes"]
        if node.op_type in ("Dropout", "MaxPool", "TopK"):
            several = [self.of(_data(node)), "index"]
        if several:
            return several[:count]
        if inner := subgraphs(node):
            # of a Loop, the body's first output is the condition
            results = inner[0].outputs[1 if node.op_type == "Loop" else 0 :]
            if len(results) == count:
                return [self.of(v) for v in results]
        return [self._output(node)] * count

    def _output(self, node: ir.Node) -> Kind:
        op_type = node.op_type
        if op_type == "QuantizeLinear":
            return "codes"
        if op_type == "DequantizeLinear":
            return "float"
        if op_type == "QGemm" and not _requantizes(node):
            return "float"
        if is_integer_kernel(op_type):
            return _INTEGER_KERNELS.get(op_type, "codes")
        if op_type in _TO_INDEX:
            return "index"
        if op_type == "Cast":
            return _kind(ir.DataType(int_attribute(node, "to", ir.DataType.FLOAT)))
        if op_type in ("Constant", "ConstantOfShape"):
            return _constant(node)
        return self.of(_data(node))


def is_integer_kernel(op_type: str) -> bool:
    """Return whether an operator of this type computes on integers, whatever it reads."""
    return op_type.startswith("QLinear") or op_type in _INTEGER_KERNELS


def is_quantized(graph: ir.Graph) -> bool:
    """Return whether there is any conversion or integer kernel in a graph or those inside it."""
    return any(n.op_type in CONVERSIONS or is_integer_kernel(n.op_type) for n in walk(graph))


def walk(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield every node in the order in which they run: those inside a node before it."""
    for node in graph:
        for inner in subgraphs(node):
            yield from walk(inner)
        yield node


def _data(node: ir.Node) -> ir.Value | None:
    index = _DATA_INPUT.get(node.op_type, 0)
    return node.inputs[index] if index < len(node.inputs) else None


def _kind(dtype: ir.DataType) -> Kind:
    if dtype in _CODES:
        return "codes"
    return "float" if dtype.is_floating_point() else "index"


def _constant(node: ir.Node) -> Kind:
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            return _kind(attribute.as_tensor().dtype)
        if name in ("value_int", "value_ints", "value_string", "value_strings"):
            return "index"
    return "float"


def _requantizes(node: ir.Node) -> bool:
    """Whether a QGemm puts out codes: its last inputs are then the output's scale and zero."""
    return len(node.inputs) > 7 and node.inputs[7] is not None
