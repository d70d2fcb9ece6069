"""Remove operators that do nothing at inference."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import (
    bypass,
    constant,
    input_at,
    int_attribute,
    ints_attribute,
    is_op,
    rank,
    static_shape,
)

#: Exporters write the largest int32 or int64 for "to the end"; no dimension is as large.
_TO_THE_END = 2**31 - 1


class RemoveNoOps(Rewrite):
    """Remove Identity, Dropout, and casts, pads, slices, reshapes and transposes without effect.

    Of two transposes that undo one another the second goes; the first is dead code then.
    """

    subject: ClassVar[str] = "operators without effect"
    verb: ClassVar[str] = "removed"

    def apply(self, model: ir.Model) -> int:
        """Remove, and return how many nodes are gone."""
        count = 0
        for node in model.graph:
            source = input_at(node, 0)
            if node.domain != "" or source is None:
                continue
            if (undone := _before_transpose(node, source)) is not None:
                count += bypass(node, undone)
            elif _does_nothing(node, source):
                count += bypass(node, source)
        return count


def _does_nothing(node: ir.Node, source: ir.Value) -> bool:
    match node.op_type:
        case "Identity":
            return True
        case "Dropout":
            return _is_inference(node)
        case "Cast":
            return source.dtype is not None and source.dtype == int_attribute(node, "to", 0)
        case "Pad":
            pads = constant(input_at(node, 1))
            return pads is not None and not pads.any()
        case "Transpose":
            permutation = ints_attribute(node, "perm", ())
            return bool(permutation) and list(permutation) == sorted(permutation)
        case "Reshape" | "Expand":
            shape = static_shape(node.outputs[0])
            return shape is not None and shape == static_shape(source)
        case "Slice":
            return _slices_nothing_off(node)
        case "Flatten":
            return rank(source) == 2 and int_attribute(node, "axis", 1) in (1, -1)
        case "Concat" | "Sum" | "Max" | "Min" | "Mean":
            return len(node.inputs) == 1
    return False


def _is_inference(node: ir.Node) -> bool:
    """Return whether a Dropout is off; its ``training_mode`` input is false when left out."""
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    training = input_at(node, 2)
    array = constant(training)
    return training is None or (array is not None and not array.any())


def _slices_nothing_off(node: ir.Node) -> bool:
    starts, ends, steps = (constant(input_at(node, index)) for index in (1, 2, 4))
    if starts is None or ends is None or (input_at(node, 4) is not None and steps is None):
        return False
    by_one = steps is None or bool((steps == 1).all())
    return by_one and not starts.any() and bool((ends >= _TO_THE_END).all())


def _before_transpose(node: ir.Node, source: ir.Value) -> ir.Value | None:
    """Return the tensor that a pair of transposes, of which ``node`` is the second, gives back."""
    before = source.producer()
    if before is None or not is_op(node, "Transpose") or not is_op(before, "Transpose"):
        return None
    first, second = (ints_attribute(n, "perm", ()) for n in (before, node))
    axes = list(range(len(first)))
    if sorted(first) != axes or sorted(second) != axes:
        return None
    # left out, both reverse all axes
    return before.inputs[0] if [first[axis] for axis in second] == axes else None
