"""The straight-through estimator: a value in the forward pass, the gradient of another one.

``StraightThrough(x, q)`` is ``q``, and its gradient goes to ``x`` as it is. What training needs of
quantizers is said with it: rounding is ``StraightThrough(x, Round(x))``, the gradient of PACT is
that of its clipping, ``StraightThrough(clip(x, 0, α), quantized)``, and a gradient is scaled by
``g`` by ``StraightThrough(g · x, x)``.

Reference: Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation", arXiv:1308.3432, 2013.
"""

from __future__ import annotations

import onnx_ir as ir

from ptq.train.tape import DOMAIN, Operand, Tape

OP_TYPE = "StraightThrough"


def straight_through(tape: Tape, x: Operand, q: Operand) -> ir.Value:
    """Return ``q``, whose gradient is that of ``x``; both of one shape."""
    return tape.op(OP_TYPE, x, q, domain=DOMAIN)


def rounded(tape: Tape, x: Operand) -> ir.Value:
    """Return values rounded half to even, as if rounding did nothing to the gradient."""
    return straight_through(tape, x, tape.op("Round", x))


def without_gradient(tape: Tape, x: Operand) -> ir.Value:
    """Return a value through which no gradient goes."""
    return tape.op("StopGradient", x, domain=DOMAIN)


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
