"""Name what stayed in float although all that it reads is quantized, and say why."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ptq.graph.emit_integer.registry import rules
from ptq.graph.passes.edit import is_constant, is_op

#: Operators of which one input holds the data; the others are indices, shapes and conditions.
_DATA = {"Where": slice(1, 3)}
_FIRST = frozenset(
    {"ArgMax", "Clip", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "ReduceMax"}
    | {"ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Resize", "Slice", "Split", "Squeeze"}
    | {"Tile", "TopK", "Unsqueeze"}
)

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


def left_in_float(graph: ir.Graph, why: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Return name, type and reason of the nodes that read only dequantized values.

    Args:
        graph: after fusing.
        why: what the rules said, by node name.
    """
    found = []
    for node in graph:
        if node.op_type in _CONVERSIONS or _is_apart(node):
            continue
        data = node.inputs[_DATA.get(node.op_type, slice(0, 1 if node.op_type in _FIRST else None))]
        read = [v for v in data if v is not None and not is_constant(v)]
        if not read or not all(_dequantized(v) or _kept_apart(v) for v in read):
            continue
        reason = why.get(node.name or "", "")
        if any(map(_kept_apart, read)):
            reason = "kept in float on purpose"
        elif not reason:
            known = node.domain == "" and node.op_type in rules()
            reason = "its pattern is not known" if known else f"no kernel for {node.op_type}"
        found.append((node.name or "", node.op_type, reason))
    return tuple(found)


def _dequantized(value: ir.Value) -> bool:
    return is_op(value.producer(), "DequantizeLinear")


def _kept_apart(value: ir.Value) -> bool:
    """Whether a Sum of one operand keeps the runtime from seeing that the value is dequantized."""
    node = value.producer()
    if node is None or not _is_apart(node):
        return False
    [behind] = node.inputs
    return behind is not None and _dequantized(behind)


def _is_apart(node: ir.Node) -> bool:
    return is_op(node, "Sum") and len(node.inputs) == 1
