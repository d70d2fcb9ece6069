"""Put the nodes in topological order, as ONNX demands."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import subgraphs


class SortNodes(Rewrite):
    """Sort the nodes of the graph and of its subgraphs, keeping their order where it is right."""

    subject: ClassVar[str] = "order"
    verb: ClassVar[str] = "nodes moved"

    def apply(self, model: ir.Model) -> int:
        """Sort, and return how many nodes stand elsewhere now.

        Raises:
            ModelError: the graph has a cycle.
        """
        if _is_sorted(model.graph, set()):
            return 0
        before = [node for graph in model.graphs() for node in graph]
        try:
            model.graph.sort()
        except ValueError as error:
            raise ModelError("the model's graph has a cycle; export it again") from error
        after = [node for graph in model.graphs() for node in graph]
        return sum(a is not b for a, b in zip(before, after, strict=True))


def _is_sorted(graph: ir.Graph, seen: set[ir.Node]) -> bool:
    """Return whether every node comes after the producers of what it and its subgraphs read."""
    for node in graph:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer not in seen:
                return False
        if not all(_is_sorted(subgraph, seen) for subgraph in subgraphs(node)):
            return False
        seen.add(node)
    return True
