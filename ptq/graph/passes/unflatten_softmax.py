"""Undo what the opset conversion does to Softmax where it is not needed.

Softmax of opset 11 works on the matrix that its input is flattened to, and the converter writes
that out: Shape, Flatten, Softmax, Reshape. Where the axis is the last one, Softmax alone does.
"""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import bypass, input_at, int_attribute, is_op, only_user, rank


class UnflattenSoftmax(Rewrite):
    """Replace Reshape(Softmax(Flatten(x)), Shape(x)) over the last axis by Softmax(x)."""

    subject: ClassVar[str] = "softmax"
    verb: ClassVar[str] = "no longer flattened"

    def apply(self, model: ir.Model) -> int:
        """Rewrite; the Shape and the Flatten become dead code."""
        return sum(_rewrite(node) for node in model.graph if is_op(node, "Reshape"))


def _rewrite(node: ir.Node) -> bool:
    result, shape = node.inputs[0], input_at(node, 1)
    softmax = None if result is None else result.producer()
    measured = None if shape is None else shape.producer()
    if softmax is None or measured is None or result is None or not is_op(measured, "Shape"):
        return False
    if not is_op(softmax, "Softmax", "LogSoftmax", "Hardmax") or only_user(result) is not node:
        return False
    source = measured.inputs[0]
    whole = not {"start", "end"} & measured.attributes.keys()
    if source is None or not whole or int_attribute(softmax, "axis", -1) != -1:
        return False
    if not _keeps_last_axis(softmax.inputs[0], source):
        return False
    softmax.replace_input_with(0, source)
    return bypass(node, result)


def _keeps_last_axis(flat: ir.Value | None, source: ir.Value) -> bool:
    """Return whether ``flat`` is ``source``, or is it with all axes but the last one merged."""
    if flat is source:
        return True
    flatten = None if flat is None else flat.producer()
    dims = rank(source)
    if flatten is None or dims is None or not is_op(flatten, "Flatten"):
        return False
    return flatten.inputs[0] is source and int_attribute(flatten, "axis", 1) in (dims - 1, -1)
