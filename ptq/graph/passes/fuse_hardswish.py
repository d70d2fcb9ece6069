"""Find HardSigmoid and HardSwish where they are written out, and write them as one operator."""

from __future__ import annotations

import math
from typing import ClassVar

import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import (
    float_attribute,
    input_at,
    is_op,
    only_user,
    rank,
    scalar,
    take_over,
)

#: Exporters write a sixth with fewer digits than float32 has: Paddle 0.1666666, torch 0.16666667.
_CLOSE = 1e-5

#: HardSwish is an operator since this opset.
_HARD_SWISH_OPSET = 14


class FuseHardSwish(Rewrite):
    """Replace Clip(x + b, 0, h) / h by HardSigmoid, and x * HardSigmoid(x) by HardSwish.

    So Paddle and old exporters of torch write them; with one kernel for each step they take up to
    twice as long (onnxruntime 1.31), and whoever makes them integer wants to see the whole.
    """

    subject: ClassVar[str] = "hardsigmoid and hardswish"
    verb: ClassVar[str] = "fused"

    def apply(self, model: ir.Model) -> int:
        """Fuse, and return how many operators were written in place of several."""
        clips = [node for node in model.graph if is_op(node, "Clip")]
        count = sum(_fuse_gate(node) for node in clips)
        if model.graph.opset_imports.get("", 0) >= _HARD_SWISH_OPSET:
            products = [node for node in model.graph if is_op(node, "Mul")]
            count += sum(_fuse_swish(node) for node in products)
        return count


def _fuse_gate(clip: ir.Node) -> bool:
    """Replace a Clip, the Add before it and the division after it by a HardSigmoid."""
    least, most = (scalar(input_at(clip, index)) for index in (1, 2))
    added = clip.inputs[0]
    add = None if added is None else added.producer()
    if least != 0.0 or most is None or not 0.0 < most < math.inf:
        return False
    if add is None or added is None or not is_op(add, "Add") or only_user(added) is not clip:
        return False
    found, division = _number_and_tensor(add), _division(clip, most)
    if found is None or division is None or clip.graph is not add.graph:
        return False
    shift, x = found
    divide, divided = division
    attributes = {"alpha": 1.0 / most, "beta": shift / most}
    gate = _insert(clip, ir.node("HardSigmoid", [x], attributes=attributes, name=clip.name))
    # of x * Clip(...) / h, the product becomes what the division made
    take_over(clip.outputs[0], gate)
    take_over(divide.outputs[0], gate if divided is clip.outputs[0] else divided)
    for node in (divide, clip, add):
        _remove(node)
    return True


def _division(clip: ir.Node, by: float) -> tuple[ir.Node, ir.Value] | None:
    """Return the division of a Clip, or of its product with another tensor, and what it divides."""
    value = clip.outputs[0]
    user = only_user(value)
    if user is not None and is_op(user, "Mul") and not _divides(user, value, by):
        value = user.outputs[0]
        user = only_user(value)
    if user is None or user.graph is not clip.graph or not _divides(user, value, by):
        return None
    return user, value


def _divides(node: ir.Node, value: ir.Value, by: float) -> bool:
    if is_op(node, "Div") and node.inputs[0] is value:
        divisor = scalar(node.inputs[1])
        adds_no_axis = (rank(node.inputs[1]) or 0) <= (rank(value) or 0)
        return divisor is not None and adds_no_axis and math.isclose(divisor, by, rel_tol=_CLOSE)
    found = _number_and_tensor(node) if is_op(node, "Mul") else None
    if found is None or found[1] is not value:
        return False
    return math.isclose(found[0] * by, 1.0, rel_tol=_CLOSE)


def _fuse_swish(product: ir.Node) -> bool:
    """Replace x * HardSigmoid(x, 1/6, 1/2) by HardSwish."""
    for index in (0, 1):
        gated, x = product.inputs[index], product.inputs[1 - index]
        gate = None if gated is None else gated.producer()
        if gate is None or gated is None or x is None or not is_op(gate, "HardSigmoid"):
            continue
        if gate.inputs[0] is not x or only_user(gated) is not product:
            continue
        alpha, beta = float_attribute(gate, "alpha", 0.2), float_attribute(gate, "beta", 0.5)
        sixth = math.isclose(alpha, 1 / 6, rel_tol=_CLOSE)
        if not sixth or not math.isclose(beta, 0.5, rel_tol=_CLOSE):
            continue
        if product.graph is not gate.graph:
            continue
        swish = _insert(product, ir.node("HardSwish", [x], name=product.name))
        take_over(product.outputs[0], swish)
        for node in (product, gate):
            _remove(node)
        return True
    return False


def _number_and_tensor(node: ir.Node) -> tuple[float, ir.Value] | None:
    """Return the number and the float32 tensor that an Add or Mul has for operands."""
    for index in (0, 1):
        operand, tensor = node.inputs[index], node.inputs[1 - index]
        number = scalar(operand)
        if number is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        # an operand of more dimensions than the tensor would add some to the output
        if (rank(operand) or 0) <= (rank(tensor) or 0):
            return number, tensor
    return None


def _insert(before: ir.Node, node: ir.Node) -> ir.Value:
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def _remove(node: ir.Node) -> None:
    assert node.graph is not None
    node.graph.remove(node, safe=True)
