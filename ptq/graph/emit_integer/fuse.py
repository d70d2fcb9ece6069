"""Apply the rules until nothing changes, and say what was fused and what was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.emit_integer.left import left_in_float
from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rules
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter
from ptq.graph.guard import claimed, requantized
from ptq.graph.passes.remove_dead import RemoveDead


@dataclass(frozen=True, slots=True)
class Fused:
    """What fusing did.

    Attributes:
        kernels: the integer operators written, by type.
        left: the operators that read nothing but dequantized values and were not fused: name,
            type, and why.
        conversions: QuantizeLinear and DequantizeLinear that are left.
    """

    kernels: Counter[str]
    left: tuple[tuple[str, str, str], ...]
    conversions: int


def fuse_integer(model: ir.Model) -> Fused:
    """Rewrite QuantizeLinear and DequantizeLinear into fused integer operators, in place.

    Every operator that has an integer kernel and its operands behind DequantizeLinear becomes that
    kernel, under its own name; Relu, Clip and QuantizeLinear after it are absorbed. What is left in
    float computes what it did before. A second run changes nothing.

    Args:
        model: of opset 21 or newer, as `ptq.graph.emit_qdq` leaves it.
    """
    rewriter = Rewriter(model)
    sweep = RemoveDead()
    why: dict[str, str] = {}
    sweep(model)
    while _pass(rewriter, why):
        sweep(model)
    left = left_in_float(model.graph, why)
    _keep_apart(rewriter)
    if any(node.domain == MICROSOFT for node in model.graph):
        model.opset_imports[MICROSOFT] = 1
    conversions = sum(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in model.graph)
    return Fused(rewriter.kernels, left, conversions)


def _pass(rewriter: Rewriter, why: dict[str, str]) -> bool:
    """Apply the rules to every node in order, and return whether anything changed."""
    changed = False
    known = rules()
    for node in list(rewriter.graph):
        for rule in known.get(node.op_type, ()):
            if node.graph is None or node.domain != "":
                break  # gone with the pattern of a node before it
            try:
                changed |= rule(node, rewriter)
            except UnfitError as error:
                why[node.name or ""] = str(error)
    return changed


def _keep_apart(rewriter: Rewriter) -> None:
    """Keep in float what no rule took, but onnxruntime would.

    It takes an AveragePool with dilations, say, for a kernel that knows none. And a
    DequantizeLinear that was moved can bring an operator within its reach.
    """
    graph = rewriter.graph
    found = [(node, 0) for node in requantized(graph)]
    found += [(n, int(n.op_type == "Where")) for n in claimed(graph, frozenset())]
    for node, index in found:
        value = node.inputs[index]
        assert value is not None
        apart = ir.node("Sum", [value], name=rewriter.fresh(f"{value.name}/Sum"))
        apart.outputs[0].name = rewriter.fresh(f"{value.name}/apart")
        graph.insert_before(node, apart)
        node.replace_input_with(index, apart.outputs[0])
