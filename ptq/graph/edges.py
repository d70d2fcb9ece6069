"""The first and the last layers of a network: what comes in and goes out passes through them.

Papers on few bits keep them at 8: what the first one loses, nothing after it can make up for, and
what the last one loses is an error of the output itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import onnx_ir as ir

from ptq.graph.passes.edit import input_at, is_constant, is_op
from ptq.graph.scheme import WEIGHT_INPUTS

#: Some of the values around a node.
_Values: TypeAlias = Callable[[ir.Node], Sequence[ir.Value | None]]


def edge_layers(model: ir.Model) -> frozenset[str]:
    """Return the nodes with a weight before or after which no other is, by name.

    A network has several where its branches begin at its inputs or end at its outputs. Nodes that
    share the weight of such a node are among them, for it is in the file once. Bodies of If and
    Loop are not looked into.

    Args:
        model: a normalized model: nodes are in an order in which they can be computed.
    """
    nodes = list(model.graph)
    weighted = [node for node in nodes if _weights(node)]
    after = _reached(nodes, lambda n: n.inputs, lambda n: n.outputs)
    before = _reached(reversed(nodes), lambda n: n.outputs, lambda n: n.inputs)
    edges = [n for n in weighted if id(n) not in after or id(n) not in before]
    held = {id(value) for node in edges for value in _weights(node)}
    return frozenset(n.name or "" for n in weighted if any(id(v) in held for v in _weights(n)))


def _reached(nodes: Iterable[ir.Node], comes: _Values, goes: _Values) -> set[int]:
    """Return the nodes, by identity, that a path from another one with a weight leads to.

    Args:
        nodes: all of them, in the direction of the paths.
        comes: the values by which paths come to a node.
        goes: those by which they leave it.
    """
    behind, found = set[int](), set[int]()
    for node in nodes:
        reached = any(id(v) in behind for v in comes(node))
        if reached:
            found.add(id(node))
        if reached or _weights(node):
            behind.update(id(v) for v in goes(node) if v is not None)
    return found


def _weights(node: ir.Node) -> list[ir.Value]:
    """Return the constants that a node multiplies by, or looks rows up in."""
    if not is_op(node, *WEIGHT_INPUTS):
        return []
    values = [input_at(node, index) for index in WEIGHT_INPUTS[node.op_type]]
    return [v for v in values if v is not None and v.dtype == ir.DataType.FLOAT and is_constant(v)]
