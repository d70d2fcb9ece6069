"""The operators that only training knows, as functions that any runtime runs, and without them."""

from __future__ import annotations

import onnx_ir as ir

from ptq.train.straight_through import DOMAIN, OP_TYPE


def functions() -> tuple[ir.Function, ...]:
    """Return both operators as functions of standard ones, with which any runtime runs them."""
    return _function(OP_TYPE, 2, 1), _function("StopGradient", 1, 0)


def resolve(graph: ir.Graph) -> None:
    """Replace both operators by what they return: gradients have been taken."""
    for node in list(graph):
        if node.domain != DOMAIN or node.op_type not in (OP_TYPE, "StopGradient"):
            continue
        kept = node.inputs[-1]
        assert kept is not None
        identity = ir.node("Identity", [kept], name=node.name)
        identity.outputs[0].name = node.outputs[0].name
        graph.insert_before(node, identity)
        node.outputs[0].replace_all_uses_with(identity.outputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _function(name: str, inputs: int, returned: int) -> ir.Function:
    values = [ir.Value(name=f"x{i}") for i in range(inputs)]
    node = ir.node("Identity", [values[returned]], name=name)
    node.outputs[0].name = "y"
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": 21}, name=name)
    return ir.Function(DOMAIN, name, graph=graph, attributes=[])
