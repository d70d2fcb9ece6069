"""Fold Mul, Div, Add and Sub of constants into the linear operator before or after them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import (
    Array,
    Initializers,
    absorb,
    bypass,
    constant,
    input_at,
    is_op,
    only_user,
)
from ptq.graph.passes.linear import Affine, data_rank, fold_before, fold_behind


class FoldAffine(Rewrite):
    """Fold elementwise constants, one number or one per channel, into weights and bias.

    Of the operator after them, weights take one number only: a scale for each of its inputs would
    make their sizes uneven, which costs precision when they are quantized. A weight that several
    operators share is not copied for it: that would cost more than it saves.
    MatMul followed by Add of a vector is left alone: it is how a linear layer with a bias is
    written, and MatMul has nowhere to put a bias.
    """

    subject: ClassVar[str] = "mul and add of constants"
    verb: ClassVar[str] = "folded"

    def apply(self, model: ir.Model) -> int:
        """Fold, and return how many nodes are gone."""
        constants = Initializers(model)
        nodes = [node for node in model.graph if is_op(node, "Mul", "Div", "Add", "Sub")]
        return sum(_fold(node, constants) for node in nodes)


def _fold(node: ir.Node, constants: Initializers) -> bool:
    for index in (0, 1):
        value, operand = node.inputs[index], constant(node.inputs[1 - index])
        if value is None or operand is None or not np.issubdtype(operand.dtype, np.floating):
            continue
        affine = _affine(node.op_type, index, operand)
        # an operand of more dimensions than the tensor would add some to the output
        if affine is None or operand.ndim > _least_rank(value):
            continue
        if not _copies_weight(value.producer(), affine) and fold_behind(value, affine, constants):
            return absorb(node, value)
        if _fold_forward(node, affine, constants):
            return bypass(node, value)
    return False


def _fold_forward(node: ir.Node, affine: Affine, constants: Initializers) -> bool:
    output = node.outputs[0]
    if affine.scales and affine.axis is not None:
        return False
    if _copies_weight(only_user(output), affine):
        return False
    return fold_before(output, affine, constants)


def _copies_weight(linear: ir.Node | None, affine: Affine) -> bool:
    """Return whether a scale would have to be folded into a copy of a weight that is shared."""
    weight = None if linear is None else input_at(linear, 1)
    return weight is not None and only_user(weight) is None and affine.scales


def _affine(op_type: str, index: int, operand: Array) -> Affine | None:
    """Return the map of an elementwise operator whose tensor is at ``index``."""
    wide = [axis for axis, size in enumerate(operand.shape) if size != 1]
    if len(wide) > 1:
        return None
    axis = wide[0] - operand.ndim if wide else None
    numbers = operand.astype(np.float64).reshape(-1)
    one, zero = np.ones(1), np.zeros(1)
    match op_type, index:
        case "Mul", _:
            return Affine(numbers, zero, axis)
        case "Add", _:
            return Affine(one, numbers, axis)
        case "Sub", 0:
            return Affine(one, -numbers, axis)
        case "Sub", 1:
            return Affine(-one, numbers, axis)
        case "Div", 0 if numbers.all():
            return Affine(1 / numbers, zero, axis)
    return None


def _least_rank(value: ir.Value) -> int:
    """Return a rank that the tensor has at least: a MatMul's by its weight is not certain."""
    known = data_rank(value.producer())
    if known is None and value.shape is not None:
        return len(value.shape)
    return known or 1
