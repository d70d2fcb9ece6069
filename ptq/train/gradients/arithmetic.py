"""Gradients of arithmetic on two operands, and of choosing between them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient

Grads = Sequence["ir.Value | None"]


def _both(at: Backward, a: ir.Value, b: ir.Value) -> Grads:
    """Return gradients of the shape of the result as those of what was broadcast."""
    shape = at.shape(at.y)
    return at.reduced(a, shape, at.x(0)), at.reduced(b, shape, at.x(1))


@gradient("Add")
def add(at: Backward) -> Grads:
    """``a + b``."""
    return _both(at, at.grad, at.grad)


@gradient("Sub")
def sub(at: Backward) -> Grads:
    """``a - b``."""
    return _both(at, at.grad, at.op("Neg", at.grad))


@gradient("Mul")
def mul(at: Backward) -> Grads:
    """``a b``."""
    return _both(at, at.op("Mul", at.grad, at.x(1)), at.op("Mul", at.grad, at.x(0)))


@gradient("Div")
def div(at: Backward) -> Grads:
    """``a / b``; ``d/db = -(a / b) / b``."""
    by_a = at.op("Div", at.grad, at.x(1))
    return _both(at, by_a, at.op("Neg", at.op("Mul", by_a, at.y)))


@gradient("Sum", "Mean")
def total(at: Backward) -> Grads:
    """``a + b + …``, or their mean."""
    shape, grad = at.shape(at.y), at.grad
    if at.node.op_type == "Mean":
        grad = at.op("Mul", grad, 1 / len(at.node.inputs))
    return [at.reduced(grad, shape, v) for v in at.node.inputs if v is not None]


@gradient("Where")
def where(at: Backward) -> Grads:
    """``a`` where a condition holds, ``b`` elsewhere."""
    shape = at.shape(at.y)
    a = at.op("Where", at.x(0), at.grad, 0.0)
    b = at.op("Where", at.x(0), 0.0, at.grad)
    return None, at.reduced(a, shape, at.x(1)), at.reduced(b, shape, at.x(2))


@gradient("Min", "Max")
def extreme(at: Backward) -> Grads:
    """The gradient goes to the operand that is the result; of two equal ones, to the first."""
    if len(at.node.inputs) == 1:
        return (at.grad,)
    shape, grads = at.shape(at.y), []
    left = at.grad
    for value in at.node.inputs:
        assert value is not None
        chosen = at.op("Equal", value, at.y)
        grads.append(at.reduced(at.op("Where", chosen, left, 0.0), shape, value))
        left = at.op("Where", chosen, 0.0, left)
    return grads
