"""Find where onnxruntime would rewrite a quantized graph into something else than the plan says.

Its optimizers merge an operator with its neighbours before it looks for integer kernels, and then
finds none; and it quantizes by itself what it takes for forgotten (KERNELS, hazards 2 and 3). Both
were measured with onnxruntime 1.31, pattern by pattern; tests/graph/test_guard.py has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import onnx_ir as ir

from ptq.graph.sites import Site, Sites

#: Operators whose float weights onnxruntime quantizes between DequantizeLinear and QuantizeLinear,
#: with one scale for all channels. A MatMul becomes a Gemm with the Add after it.
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

#: Operators with integer kernels that onnxruntime chooses by their surroundings alone.
_CLAIMED = frozenset(
    {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax"}
    | {"Where"}
)

#: What QuantizeLinear and DequantizeLinear are moved across.
_MOVES = frozenset({"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})

#: What QuantizeLinear is taken to do anyway.
_CLIPS = frozenset({"Clip", "Relu"})

#: What is merged into the weighted operator before it.
_MERGED = _CLIPS | {"Add", "BatchNormalization", "Mul"}


def merging_readers(sites: Sites) -> Iterator[tuple[ir.Node, int]]:
    """Yield which input of which node would be merged with the linear site before it.

    That takes the integer kernel from a site with a float output: Add and Sum make it a float
    Gemm, Relu and Clip count as part of an operator that lacks its QuantizeLinear.
    """
    for site in sites.sites:
        result = site.node.outputs[0]
        uses = list(result.uses())
        if site.requantize or len(uses) != 1:
            continue
        reader, index = uses[0]
        if reader.graph is site.node.graph and _is_standard(reader) and _merges(site, reader):
            yield reader, index


def _merges(site: Site, reader: ir.Node) -> bool:
    op_type = site.node.op_type
    if op_type not in ("Gemm", "MatMul"):
        return False
    if reader.op_type in ("Relu", "Clip"):
        return True
    if op_type == "Gemm":
        return reader.op_type == "Sum" and len(reader.inputs) == 2
    # beyond matrices, a vector is merged all the same: the runtime reshapes around the Gemm
    shape = site.node.outputs[0].shape
    matrix = shape is None or len(shape) <= 2
    return reader.op_type == "Add" and (matrix or any(map(_is_vector, reader.inputs)))


def requantized(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes with float weights that onnxruntime would quantize on its own."""
    for node in graph:
        if not _is_standard(node) or node.op_type not in _WEIGHTED or len(node.inputs) < 2:
            continue
        if not _is_constant(node.inputs[1]):
            continue
        if _comes_dequantized(node.inputs[0]) and _goes_quantized(node.outputs[0], _MERGED):
            yield node


def claimed(graph: ir.Graph, integer: Set[str]) -> Iterator[ir.Node]:
    """Yield the nodes that onnxruntime would run on codes although the plan keeps them in float.

    It needs nothing but DequantizeLinear before and QuantizeLinear after them. Some of those
    kernels are several times slower than float, and a user who excludes an Add means it.

    Args:
        graph: the emitted graph.
        integer: names of the nodes that are to run as integer kernels.
    """
    for node in graph:
        if not _is_standard(node) or node.op_type not in _CLAIMED or node.name in integer:
            continue
        operands = [v for v in node.inputs if v is not None]
        if node.op_type == "Where":
            operands = operands[1:]
        if all(map(_comes_dequantized, operands)) and _goes_quantized(node.outputs[0], _CLIPS):
            yield node


def _comes_dequantized(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    # Pad is merged into the convolution after it
    while node is not None and _is_standard(node) and node.op_type in _MOVES | {"Pad"}:
        moved = node.inputs[0]
        node = None if moved is None else moved.producer()
    return node is not None and _is_standard(node) and node.op_type == "DequantizeLinear"


def _goes_quantized(value: ir.Value, merged: Set[str]) -> bool:
    """Whether the value reaches a QuantizeLinear without a branch on the way.

    Being an output of the graph is no branch: onnxruntime quantizes that, too.

    Args:
        value: what the operator puts out.
        merged: operators on the way that become part of it, if their other operands are constant.
    """
    uses = list(value.uses())
    while len(uses) == 1 and _is_standard(uses[0].node):
        node, index = uses[0]
        if node.op_type == "QuantizeLinear":
            return True
        others = [v for i, v in enumerate(node.inputs) if i != index and v is not None]
        passed = node.op_type in merged and all(map(_is_constant, others))
        if not passed and not (node.op_type in _MOVES and index == 0):
            return False
        value = node.outputs[0]
        uses = list(value.uses())
    return False


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def _is_vector(value: ir.Value | None) -> bool:
    constant = value.const_value if value is not None and value.is_initializer() else None
    return constant is not None and len(constant.shape) == 1


def _is_standard(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx")
