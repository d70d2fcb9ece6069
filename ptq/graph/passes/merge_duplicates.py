"""Compute once what the graph computes twice."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import bypass, constant, subgraphs

#: Operators that give another result each time.
_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)

#: Constants of at most so many elements are compared by value, larger ones by identity.
_COMPARED = 16


class MergeDuplicates(Rewrite):
    """Merge nodes of the standard domain that have the same inputs and attributes.

    Exporters write the shape arithmetic anew for every use. Nodes with several outputs, with
    subgraphs and with random results are left alone.
    """

    subject: ClassVar[str] = "duplicates"
    verb: ClassVar[str] = "merged"

    def apply(self, model: ir.Model) -> int:
        """Merge; expects nodes in topological order."""
        first: dict[object, ir.Node] = {}
        count = 0
        for node in model.graph:
            if node.domain != "" or node.op_type in _RANDOM or len(node.outputs) != 1:
                continue
            if subgraphs(node):
                continue
            same = first.setdefault(_key(node), node)
            # an output of the graph keeps its own node, for it keeps its name
            if same is not node and not node.outputs[0].is_graph_output():
                count += bypass(node, same.outputs[0])
        return count


def _key(node: ir.Node) -> object:
    attributes = sorted((name, _attribute_key(a)) for name, a in node.attributes.items())
    return node.op_type, tuple(map(_value_key, node.inputs)), tuple(attributes)


def _value_key(value: ir.Value | None) -> object:
    array = constant(value)
    if value is None or array is None or array.size > _COMPARED or array.dtype.kind not in "fiub":
        return id(value)
    return array.dtype.str, array.shape, array.tobytes()


def _attribute_key(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.value
        return f"{tensor.dtype}{tensor.shape}{tensor.numpy().tolist()}"
    return f"{attribute.type}{attribute.value}"
