"""Take initializers off the list of graph inputs, where old exporters put them."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from ptq.graph.passes.base import Rewrite


class RemoveInitializerInputs(Rewrite):
    """Make every initializer of the main graph a constant that no caller overrides.

    Before IR version 4 every initializer had to be listed as an input as well.
    """

    subject: ClassVar[str] = "inputs"
    verb: ClassVar[str] = "with a value made constant"

    def apply(self, model: ir.Model) -> int:
        """Remove the inputs that have a value."""
        graph = model.graph
        free = [value for value in graph.inputs if not value.is_initializer()]
        count = len(graph.inputs) - len(free)
        if count:
            graph.inputs.clear()
            graph.inputs.extend(free)
        return count
