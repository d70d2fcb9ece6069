"""Gradients of functions of one operand, and of powers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient
from ptq.train.gradients.masks import sign

Grads = Sequence["ir.Value | None"]


@gradient("Identity")
def identity(at: Backward) -> Grads:
    """The operand itself."""
    return (at.grad,)


@gradient("Dropout", severed=[1, 2])
def dropout(at: Backward) -> Grads:
    """Dropout at inference drops nothing."""
    training = at.array(2)
    if training is not None and training.any():
        raise NoGradientError("it drops values at random")
    return (at.grad,)


@gradient("Cast")
def cast(at: Backward) -> Grads:
    """One type of floats to another; nothing goes to integers."""
    source = at.x(0).dtype or ir.DataType.from_numpy(at.tape.dtype)
    if at.integer("to", 0) == int(source):
        return (at.grad,)
    return (at.op("Cast", at.grad, to=int(source)),)


@gradient("Sign", "Round", "Floor", "Ceil", "Hardmax", severed=[0])
def steps(at: Backward) -> Grads:
    """Constant wherever it can be differentiated: nothing goes back."""
    return (None,)


@gradient("Neg")
def neg(at: Backward) -> Grads:
    """``-x``."""
    return (at.op("Neg", at.grad),)


@gradient("Abs")
def absolute(at: Backward) -> Grads:
    """``|x|``; 0 at 0."""
    return (at.op("Mul", at.grad, sign(at, at.x(0))),)


@gradient("Sqrt")
def sqrt(at: Backward) -> Grads:
    """``d/dx = √x / 2x``; 0 at 0, where it is infinite."""
    return (_by_root(at),)


@gradient("Exp")
def exp(at: Backward) -> Grads:
    """``d/dx = y``."""
    return (at.op("Mul", at.grad, at.y),)


@gradient("Log")
def log(at: Backward) -> Grads:
    """``d/dx = 1 / x``."""
    return (at.op("Div", at.grad, at.x(0)),)


@gradient("Reciprocal")
def reciprocal(at: Backward) -> Grads:
    """``d/dx = -y²``."""
    return (at.op("Neg", at.op("Mul", at.op("Mul", at.grad, at.y), at.y)),)


@gradient("Erf")
def erf(at: Backward) -> Grads:
    """``d/dx = 2/√π · exp(-x²)``."""
    bell = at.op("Exp", at.op("Neg", at.op("Mul", at.x(0), at.x(0))))
    return (at.op("Mul", at.grad, at.op("Mul", bell, 2 / math.sqrt(math.pi))),)


@gradient("Tanh")
def tanh(at: Backward) -> Grads:
    """``d/dx = 1 - y²``."""
    return (at.op("Mul", at.grad, at.op("Sub", 1.0, at.op("Mul", at.y, at.y))),)


@gradient("Sin")
def sin(at: Backward) -> Grads:
    """``d/dx = cos x``."""
    return (at.op("Mul", at.grad, at.op("Cos", at.x(0))),)


@gradient("Cos")
def cos(at: Backward) -> Grads:
    """``d/dx = -sin x``."""
    return (at.op("Neg", at.op("Mul", at.grad, at.op("Sin", at.x(0)))),)


@gradient("Softplus")
def softplus(at: Backward) -> Grads:
    """``log(1 + exp x)``; ``d/dx`` is the sigmoid."""
    return (at.op("Mul", at.grad, at.op("Sigmoid", at.x(0))),)


@gradient("Softsign")
def softsign(at: Backward) -> Grads:
    """``x / (1 + |x|)``; ``d/dx = 1 / (1 + |x|)²``."""
    part = at.op("Reciprocal", at.op("Add", at.op("Abs", at.x(0)), 1.0))
    return (at.op("Mul", at.op("Mul", at.grad, part), part),)


@gradient("Pow")
def power(at: Backward) -> Grads:
    """``x ** b``; ``d/dx = b x ** (b - 1)`` and ``d/db = y log x``.

    Where the first is infinite, at base 0 with an exponent under 1, it is taken as 0; so is the
    second where the base is not positive.
    """
    shape = at.shape(at.y)
    by_x = at.reduced(_by_base(at), shape, at.x(0))
    if not at.trace.is_float(at.x(1)):
        return by_x, None
    above = at.op("Greater", at.x(0), 0.0)
    log_x = at.op("Log", at.op("Where", above, at.x(0), 1.0))
    by_b = at.op("Mul", at.op("Mul", at.grad, at.y), log_x)
    return by_x, at.reduced(by_b, shape, at.x(1))


def _by_base(at: Backward) -> ir.Value:
    known = at.trace.array(at.x(1))
    if known is not None and known.size == 1:
        return _by_base_at(at, float(known.reshape(())))
    exponent: ir.Value = at.x(1)
    if known is not None:
        exponent = at.tape.constant(known.astype(at.tape.dtype))
    less = at.op("Sub", exponent, 1.0)
    infinite = at.op("And", at.op("Equal", at.x(0), 0.0), at.op("Less", less, 0.0))
    slope = at.op("Pow", at.op("Where", infinite, 1.0, at.x(0)), less)
    slope = at.op("Where", infinite, 0.0, at.op("Mul", exponent, slope))
    return at.op("Mul", at.grad, slope)


def _by_base_at(at: Backward, exponent: float) -> ir.Value:
    """Return the gradient by the base for a known exponent."""
    x = at.x(0)
    if exponent == 1:
        return at.grad
    if exponent == 0.5:
        return _by_root(at)
    if exponent == 2:
        return at.op("Mul", at.grad, at.op("Mul", x, 2.0))
    if exponent >= 1:
        slope = at.op("Mul", x, x) if exponent == 3 else at.op("Pow", x, exponent - 1)
    else:
        zero = at.op("Equal", x, 0.0)
        slope = at.op("Pow", at.op("Where", zero, 1.0, x), exponent - 1)
        slope = at.op("Where", zero, 0.0, slope)
    return at.op("Mul", at.grad, at.op("Mul", slope, exponent))


def _by_root(at: Backward) -> ir.Value:
    least = float(np.finfo(at.tape.dtype).tiny)
    half = at.op("Mul", at.grad, at.op("Mul", at.y, 0.5))
    return at.op("Div", half, at.op("Max", at.x(0), least))
