"""Say of every node that was planned what onnxruntime made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import onnx_ir as ir

from ptq.graph.passes.edit import subgraphs
from ptq.graph.types import Model
from ptq.plan import NodePlan
from ptq.runtime.kinds import Kinds, walk
from ptq.runtime.layer import DROPPED, Layer
from ptq.runtime.reasons import NO_KERNEL


def planned_layers(
    model: Model, nodes: Sequence[NodePlan], ran: Sequence[Layer]
) -> tuple[Layer, ...]:
    """Return what became of every node of the float model, with the plan's reasons.

    Args:
        model: the prepared float model.
        nodes: what was planned, for every node of its main graph.
        ran: the layers of the quantized model, as `Coverage` has them. Of the nodes that were
            added to it nothing is said here.
    """
    found = {layer.name: layer for layer in ran}
    graph = {node.name or "": node for node in model.graph}
    kinds = Kinds(model.graph)
    layers = [_planned(plan, graph[plan.name], found, kinds) for plan in nodes]
    return (*layers, *_inner(model.graph, found))


def _planned(plan: NodePlan, node: ir.Node, found: dict[str, Layer], kinds: Kinds) -> Layer:
    layer = found.get(plan.name)
    if layer is None and kinds.work(node) == "float":
        layer = _absorbed(node, found)
    if layer is None:
        why = _why_none(plan, node, kinds)
        return Layer(name=plan.name, op_type=plan.op_type, kernel="", integer=False, why=why)
    why = layer.why if layer.integer or plan.integer or _is_pattern(plan, layer) else plan.why
    # the operator may be called otherwise in the file: QLinearConv, Sum for an Add
    return msgspec.structs.replace(layer, name=plan.name, op_type=plan.op_type, why=why)


def _is_pattern(plan: NodePlan, layer: Layer) -> bool:
    """Whether a node went into a kernel for several, such as LayerNormalization.

    Then what the plan says of the node alone explains nothing. A Sum is only how we write an Add
    that is to stay in float.
    """
    merged = plan.op_type not in layer.kernel and layer.kernel != "Sum"
    return merged and layer.why == NO_KERNEL


def _why_none(plan: NodePlan, node: ir.Node, kinds: Kinds) -> str:
    if kinds.work(node) == "neither" and not subgraphs(node):
        return "it computes no numbers (shapes, positions, copies)"
    return plan.why or DROPPED


def _absorbed(node: ir.Node, found: dict[str, Layer]) -> Layer | None:
    """Return the layer that does the work of a node which the file no longer has.

    A Relu is taken over by the requantization of what is before it, an Add by a kernel with a bias.
    """
    for value in node.inputs:
        maker = None if value is None else value.producer()
        while maker is not None:
            layer = found.get(maker.name or "")
            if layer is not None:
                return msgspec.structs.replace(layer, part_of=layer.part_of or layer.name)
            first = maker.inputs[0] if maker.inputs else None
            maker = None if first is None else first.producer()
    return None


def _inner(graph: ir.Graph, found: dict[str, Layer]) -> Iterator[Layer]:
    """Yield the layers inside If, Loop and Scan: only the main graph is quantized."""
    for node in walk(graph):
        layer = found.get(node.name or "")
        if layer is None or node.graph is graph:
            continue
        why = "" if layer.integer else "it is inside an If or a Loop, which stay in float"
        yield msgspec.structs.replace(layer, why=why)
