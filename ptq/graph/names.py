"""What the nodes and tensors of a model are called, and which nodes share a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.passes.edit import is_op
from ptq.graph.scheme import WEIGHT_INPUTS, weight_readers


@dataclass(frozen=True, slots=True)
class NodeNames:
    """One node.

    Attributes:
        name: what it is called.
        op_type: its operator.
        outputs: the tensors it makes.
        constants: the initializers it reads.
    """

    name: str
    op_type: str
    outputs: tuple[str, ...]
    constants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """All names of a model, bodies of If, Loop and Scan included.

    Attributes:
        nodes: the nodes, in graph order.
        tensors: inputs of graphs, and what nodes make.
        weights: the nodes that read it, by weight with more than one such.
    """

    nodes: tuple[NodeNames, ...]
    tensors: tuple[str, ...]
    weights: Mapping[str, tuple[str, ...]]


def names_of(model: ir.Model) -> Names:
    """Return the names of a normalized model."""
    graphs = list(model.graphs())
    nodes = tuple(_names(node) for graph in graphs for node in graph)
    inputs = [v.name or "" for g in graphs for v in g.inputs if not v.is_initializer()]
    shared: dict[str, tuple[str, ...]] = {}
    for graph in graphs:
        for value in graph.initializers.values():
            readers = tuple(sorted(node.name or "" for node in _readers(value)))
            if len(readers) > 1:
                shared[value.name or ""] = readers
    made = [output for node in nodes for output in node.outputs]
    return Names(nodes, (*inputs, *made), shared)


def _names(node: ir.Node) -> NodeNames:
    constants = [v.name or "" for v in node.inputs if v is not None and v.is_initializer()]
    outputs = tuple(v.name for v in node.outputs if v.name)
    return NodeNames(node.name or "", node.op_type, outputs, tuple(constants))


def _readers(value: ir.Value) -> set[ir.Node]:
    """Return the operators that read a value as a weight, whatever else reads it."""
    if value.dtype is not ir.DataType.FLOAT:
        return set()
    direct = {
        node
        for node, index in value.uses()
        if is_op(node, *WEIGHT_INPUTS) and index in WEIGHT_INPUTS[node.op_type]
    }
    return direct | weight_readers(value)
