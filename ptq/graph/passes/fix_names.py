"""Give every node a name of its own, and every tensor of a subgraph one that hides no other."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import subgraphs, values_of


class FixNames(Rewrite):
    """Name nodes that have no name or share one; tensors of the main graph keep their names.

    The first node of a name keeps it; nodes of the main graph come before those of subgraphs.

    A tensor inside a subgraph is renamed where an outer one has its name. ONNX forbids that, but
    it occurs, and as long as nobody reads the outer one there it goes unnoticed. A rewrite could
    make the subgraph read it, and would be given the inner one.
    """

    subject: ClassVar[str] = "names"
    verb: ClassVar[str] = "made unique"

    def apply(self, model: ir.Model) -> int:
        """Rename, and return how many nodes and tensors got a new name."""
        return _name_nodes(model) + _unhide(model.graph, set())


def _name_nodes(model: ir.Model) -> int:
    used: set[str] = set()
    nameless: list[ir.Node] = []
    for node in (node for graph in model.graphs() for node in graph):
        if node.name and node.name not in used:
            used.add(node.name)
        else:
            nameless.append(node)
    for node in nameless:
        output = next((value.name for value in node.outputs if value.name), "")
        # what the user can find in the graph: the type and the output
        node.name = _free(node.name or f"{node.op_type}:{output}", used)
        used.add(node.name)
    return len(nameless)


def _unhide(graph: ir.Graph, outer: set[str]) -> int:
    """Rename the values of subgraphs that have the name of a value they could read."""
    names = {value.name for value in values_of(graph) if value.name} | outer
    count = 0
    for subgraph in (subgraph for node in graph for subgraph in subgraphs(node)):
        inner = values_of(subgraph)
        taken = names | {value.name for value in inner if value.name}
        for value in inner:
            if value.name and value.name in names:
                value.name = _free(value.name, taken)
                taken.add(value.name)
                count += 1
        count += _unhide(subgraph, names)
    return count


def _free(base: str, used: set[str]) -> str:
    name, number = base, 1
    while name in used:
        number += 1
        name = f"{base}_{number}"
    return name
