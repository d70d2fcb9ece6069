"""Reading constants and editing values; shared by the passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Return whether the node is one of these operators of the standard domain."""
    return node is not None and node.domain == "" and node.op_type in op_types


def is_constant(value: ir.Value | None) -> bool:
    """Return whether the value is an initializer that no caller can override."""
    return (
        value is not None
        and value.is_initializer()
        and not value.is_graph_input()
        and value.const_value is not None
    )


def constant(value: ir.Value | None) -> Array | None:
    """Return the array of a constant, or ``None`` where the value is no constant."""
    if value is None or not is_constant(value):
        return None
    assert value.const_value is not None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """Return the number that a constant of one element is, or ``None`` where it is none."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or the operator's default."""
    return int(node.attributes[name].as_int()) if name in node.attributes else default


def ints_attribute(node: ir.Node, name: str, default: Sequence[int] = ()) -> list[int]:
    """Return an attribute of integers, or the operator's default."""
    return list(node.attributes[name].as_ints() if name in node.attributes else default)


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute, or the operator's default."""
    return float(node.attributes[name].as_float()) if name in node.attributes else default


def text_attribute(node: ir.Node, name: str, default: str) -> str:
    """Return a string attribute, or the operator's default."""
    return str(node.attributes[name].as_string()) if name in node.attributes else default


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input, or ``None`` where an optional one is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the single consumer of a value, or ``None``.

    Graph outputs and consumers inside a subgraph are consumers too.
    """
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node: of the graph, its subgraphs and the functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs among a node's attributes: the branches of If, the bodies of loops."""
    graphs: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            graphs.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs.extend(attribute.as_graphs())
    return graphs


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the shape where every dimension is known."""
    if value is None or value.shape is None:
        return None
    dims = value.shape.dims
    known = tuple(d for d in dims if isinstance(d, int) and d >= 0)
    return known if len(known) == len(dims) else None


def rank(value: ir.Value | None) -> int | None:
    """Return the number of dimensions where it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def bypass(node: ir.Node, kept: ir.Value) -> bool:
    """Remove a node whose first output equals ``kept``, which keeps its own name.

    Only where the output is one of the graph does ``kept`` take its name. Returns false, and
    changes nothing, where it cannot: it is itself a graph input, output or initializer.
    """
    output = node.outputs[0]
    graph = node.graph
    assert graph is not None
    if output.is_graph_output():
        if kept.is_graph_input() or kept.is_graph_output() or kept.is_initializer():
            return False
        take_over(output, kept)
    else:
        output.replace_all_uses_with(kept)
    graph.remove(node, safe=True)
    return True


def absorb(node: ir.Node, value: ir.Value) -> bool:
    """Remove a node whose work is now done by the producer of ``value``.

    The tensor that the node made lives on, so ``value`` takes its name. Returns true.
    """
    assert node.graph is not None
    take_over(node.outputs[0], value)
    node.graph.remove(node, safe=True)
    return True


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` be used, typed and named as ``old`` was."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.shape = old.shape if old.shape is not None else new.shape
    new.type = old.type if old.type is not None else new.type
    name, old.name = old.name, None
    new.name = name


def replace_by_constant(node: ir.Node, arrays: Sequence[Array]) -> None:
    """Put initializers of the same names in the place of a node's outputs and remove the node."""
    graph = node.graph
    assert graph is not None
    for output, array in zip(node.outputs, arrays, strict=True):
        if not output.name:
            continue
        name, output.name = output.name, None
        value = _initializer(name, array)
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.register_initializer(value)
    graph.remove(node, safe=True)


def _initializer(name: str, array: Array) -> ir.Value:
    tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    return ir.Value(
        name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
    )


class Initializers:
    """Writes constants of one graph under names that are free in the whole model."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._used = {value.name for graph in model.graphs() for value in values_of(graph)}

    def add(self, name: str, array: Array) -> ir.Value:
        """Add a constant; the name gets a number where it is taken."""
        free, number = name, 1
        while free in self._used:
            number += 1
            free = f"{name}_{number}"
        self._used.add(free)
        value = _initializer(free, array)
        self._graph.register_initializer(value)
        return value

    def assign(self, node: ir.Node, index: int, array: Array, name: str) -> None:
        """Give a node another constant at an input.

        The constant there now is overwritten, unless somebody else reads it too; then the node
        gets its own, called ``name``, as it does where the input was left out.
        """
        old = input_at(node, index)
        if old is not None and only_user(old) is node and not old.is_graph_input():
            tensor = ir.Tensor(np.ascontiguousarray(array), name=old.name)
            old.const_value, old.shape = tensor, tensor.shape
            return
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, self.add(name, array))


def values_of(graph: ir.Graph) -> list[ir.Value]:
    """Return the values of a graph: inputs, initializers and what its nodes make."""
    produced = [output for node in graph for output in node.outputs]
    free = (value for value in graph.initializers.values() if not value.is_graph_input())
    return [*graph.inputs, *free, *produced]
