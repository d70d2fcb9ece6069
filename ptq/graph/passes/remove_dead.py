"""Remove nodes and initializers that no output depends on."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import common

from ptq.graph.passes.base import Rewrite


class RemoveDead(Rewrite):
    """Remove what no graph output depends on; inputs stay, used or not."""

    subject: ClassVar[str] = "dead code"
    verb: ClassVar[str] = "nodes and initializers removed"

    def apply(self, model: ir.Model) -> int:
        """Remove, and return how many nodes and initializers went."""
        before = _size(model)
        common.RemoveUnusedNodesPass()(model)
        return before - _size(model)


def _size(model: ir.Model) -> int:
    return sum(len(graph) + len(graph.initializers) for graph in model.graphs())
