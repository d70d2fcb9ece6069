"""Inline model-local functions, so that every operator is visible in the main graph."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import common

from ptq.errors import UnsupportedError
from ptq.graph.passes.base import Rewrite

#: Nodes that inlining may make. Thirty functions that call the next one twice make a billion.
_MOST_NODES = 1_000_000


class InlineFunctions(Rewrite):
    """Replace every call of a model-local function by its body, and drop the functions."""

    subject: ClassVar[str] = "functions"
    verb: ClassVar[str] = "inlined"

    def apply(self, model: ir.Model) -> int:
        """Inline; the count is that of the functions.

        Raises:
            UnsupportedError: a function calls itself, takes a graph as an attribute, or imports
                another opset than the model, or the inlined model would be huge.
        """
        count = len(model.functions)
        if not count:
            return 0
        try:
            sizes: dict[ir.OperatorIdentifier, int] = {}
            calls = model.graph.all_nodes()
            nodes = sum(_inlined_size(call, model, sizes, frozenset()) for call in calls)
            if nodes > _MOST_NODES:
                raise ValueError(f"that would make {nodes} nodes")
            common.InlinePass()(model)
        except (ValueError, RecursionError, ir.passes.PassError, ir.passes.InvariantError) as error:
            raise UnsupportedError(
                f"the model's functions cannot be inlined: {error}; export the model without them"
            ) from error
        model.functions.clear()
        return count


def _inlined_size(
    node: ir.Node,
    model: ir.Model,
    sizes: dict[ir.OperatorIdentifier, int],
    calling: frozenset[ir.OperatorIdentifier],
) -> int:
    """Return how many nodes stand for a node after inlining, counting each function once."""
    name = node.op_identifier()
    if name not in model.functions:
        return 1
    if name in calling:
        raise ValueError(f"function '{name[1]}' calls itself")
    if name not in sizes:
        inner = model.functions[name].all_nodes()
        sizes[name] = sum(_inlined_size(n, model, sizes, calling | {name}) for n in inner)
    return sizes[name]
