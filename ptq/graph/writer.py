"""Add constants and nodes to a graph, or to one of its bodies, under names that are free."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, constant, is_op, take_over, values_of
from ptq.numerics.qtype import QType

#: Converters name tensors after whole call stacks, and every weight gives its name to others.
_LONGEST_LABEL = 48

Attributes: TypeAlias = Mapping[str, int | str | ir.Attr]

#: The operators of onnxruntime that are in no standard.
CONTRIB = "com.microsoft"


class GraphWriter:
    """Writes into the graphs of one model, bodies of If and Loop included.

    A name that it gives is taken nowhere in the model, so that nothing hides an outer value.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        values = {v.name for graph in model.graphs() for v in values_of(graph)}
        nodes = {node.name for graph in model.graphs() for node in graph}
        self._taken: set[str | None] = values | nodes

    def constant(
        self, graph: ir.Graph, name: str, array: Array, qtype: QType | None = None
    ) -> ir.Value:
        """Return a new initializer; of a ``qtype`` below 8 bits it has the type of that width."""
        if qtype is not None:
            array = array.astype(ir.DataType[qtype.name.upper()].numpy())
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=self.fresh(name))
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        graph.register_initializer(value)
        return value

    def vector(self, graph: ir.Graph, value: ir.Value, array: Array) -> ir.Value:
        """Return a constant that is a vector: the one there is, or a new one of these numbers."""
        if value.const_value is not None and tuple(value.const_value.shape.numpy()) == array.shape:
            return value
        return self.constant(graph, f"{label(value.name)}/row", array)

    def insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Attributes | None = None,
    ) -> ir.Value:
        """Insert a standard operator of one output and return the output."""
        return self.insert_node(before, op_type, inputs, (name,), attributes)[0]

    def insert_node(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        names: Sequence[str],
        attributes: Attributes | None = None,
        *,
        domain: str = "",
    ) -> Sequence[ir.Value]:
        """Insert an operator whose outputs are called so, and return the outputs."""
        node = ir.node(
            op_type,
            inputs,
            attributes=attributes,
            domain=domain,
            num_outputs=len(names),
            name=self.fresh(f"{names[0]}/{op_type}"),
        )
        for output, name in zip(node.outputs, names, strict=True):
            output.name = self.fresh(name)
        assert before.graph is not None
        before.graph.insert_before(before, node)
        if domain:
            self._model.opset_imports.setdefault(domain, 1)
        return node.outputs

    def replace(
        self, node: ir.Node, results: Sequence[ir.Value], heir: ir.Node | None = None
    ) -> None:
        """Let new values take the place and the names of what a node puts out, and remove it.

        Args:
            node: it goes.
            results: what its readers read now.
            heir: the node that does its work and takes over its name; by default the one that
                makes the first of the results.
        """
        for old, new in zip(node.outputs, results, strict=True):
            take_over(old, new)
        self.remove(node, heir or results[0].producer())

    def remove(self, node: ir.Node, heir: ir.Node | None) -> None:
        """Remove a node that nothing reads any longer, and give its name to another."""
        assert node.graph is not None and heir is not None
        node.graph.remove(node, safe=True)
        heir.name = node.name

    def fresh(self, name: str) -> str:
        """Return the name, with a number if it is taken."""
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate


def array_of(value: ir.Value | None) -> Array | None:
    """Return the array of an initializer, or of a Constant node as bodies of If have them."""
    if value is None:
        return None
    node = value.producer()
    if node is not None and is_op(node, "Constant") and "value" in node.attributes:
        tensor: ir.TensorProtocol = node.attributes["value"].value
        return np.asarray(tensor.numpy())
    return constant(value)


def float_array_of(value: ir.Value | None) -> Array | None:
    """Return the array of a constant if it is float32."""
    if value is None or value.dtype not in (ir.DataType.FLOAT, None):
        return None
    array = array_of(value)
    return array if array is not None and array.dtype == np.float32 else None


def remove_unread(model: ir.Model) -> None:
    """Drop the initializers and Constant nodes that nothing reads any longer."""
    for graph in model.graphs():
        outputs = {id(v) for v in graph.outputs}
        for node in list(graph):
            if is_op(node, "Constant"):
                value = node.outputs[0]
                if not value.uses() and id(value) not in outputs:
                    graph.remove(node, safe=True)
        for name, value in list(graph.initializers.items()):
            kept = value.uses() or id(value) in outputs or value.is_graph_input()
            if not kept:
                del graph.initializers[name]


def label(name: str | None) -> str:
    """Return a name to build others from; a long one is cut, and told apart by its digest."""
    name = name or "weight"
    if len(name) <= _LONGEST_LABEL:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_LABEL - 9]}~{digest}"
