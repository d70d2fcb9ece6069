"""Merge reshapes that follow one another; TensorFlow exports are full of them."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import constant, input_at, is_op, only_user


class MergeReshapes(Rewrite):
    """Let a Reshape read past the Reshape, Flatten, Squeeze or Unsqueeze before it.

    The order of the elements is all that passes from one to the next, so the first is not needed,
    unless the second copies a dimension of its input, which a 0 in its shape asks for.
    """

    subject: ClassVar[str] = "reshapes"
    verb: ClassVar[str] = "merged"

    def apply(self, model: ir.Model) -> int:
        """Merge; what was read past is removed."""
        count = 0
        for node in model.graph:
            if not is_op(node, "Reshape"):
                continue
            shape, source = constant(input_at(node, 1)), node.inputs[0]
            before = None if source is None else source.producer()
            if shape is None or not shape.all() or before is None or source is None:
                continue
            if not is_op(before, "Reshape", "Flatten", "Squeeze", "Unsqueeze"):
                continue
            if only_user(source) is node and before.graph is node.graph:
                node.replace_input_with(0, before.inputs[0])
                model.graph.remove(before, safe=True)
                count += 1
        return count
