"""Gradients of activation functions.

Where a result saturates, its gradient is computed from the result, not from the operand: so it
agrees with the result even where that is inexact, as that of onnxruntime's ``Sigmoid`` is far below
0, and a loss that divides by the result still gets what it should.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient
from ptq.train.gradients.masks import between, positive
from ptq.train.tape import Operand

Grads = Sequence["ir.Value | None"]

#: Mish beyond it is x, in floats: its slope differs from 1 by less than 1e-15.
_MISH_IS_LINEAR = 20.0


@gradient("Relu")
def relu(at: Backward) -> Grads:
    """``max(x, 0)``; 0 at 0."""
    return (at.op("Mul", at.grad, positive(at, at.y)),)


@gradient("LeakyRelu")
def leaky_relu(at: Backward) -> Grads:
    """``x`` above 0, ``alpha x`` below."""
    x, alpha = at.x(0), at.number("alpha", 0.01)
    if 0.0 <= alpha <= 1.0:
        return (at.op("Mul", at.grad, positive(at, x, below=alpha)),)
    slope = at.op("Where", at.op("Greater", x, 0.0), 1.0, alpha)
    return (at.op("Mul", at.grad, slope),)


@gradient("PRelu")
def prelu(at: Backward) -> Grads:
    """``x`` above 0, ``slope x`` below."""
    x, slope = at.x(0), at.x(1)
    below = at.op("Mul", at.grad, slope)
    by_x = at.op("Where", at.op("Greater", x, 0.0), at.grad, below)
    by_slope = at.op("Mul", at.grad, at.op("Min", x, 0.0))
    return by_x, at.reduced(by_slope, at.shape(at.y), slope)


@gradient("ThresholdedRelu")
def thresholded_relu(at: Backward) -> Grads:
    """``x`` above ``alpha``, 0 up to it."""
    above = at.op("Sub", at.x(0), at.number("alpha", 1.0))
    return (at.op("Mul", at.grad, positive(at, above)),)


@gradient("Clip")
def clip(at: Backward) -> Grads:
    """``min(max(x, lo), hi)``; 1 for ``lo < x < hi``, and the bounds get what they replace.

    Reference: Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks",
    arXiv:1805.06085, 2018, equation 4: the upper bound gets the gradient where ``x >= hi``; the
    lower one, likewise, where ``x <= lo``.
    """
    return (
        _inside(at, _bound(at, 1), _bound(at, 2)),
        _by_bound(at, 1, "LessOrEqual"),
        _by_bound(at, 2, "GreaterOrEqual"),
    )


def _inside(at: Backward, lo: Operand, hi: Operand) -> ir.Value:
    """Return the gradient where neither bound is reached, 0 elsewhere."""
    x = at.x(0)
    if lo is None and hi is None:
        return at.grad
    if hi is None:
        return at.op("Mul", at.grad, positive(at, at.op("Sub", x, lo)))
    if lo is None:
        return at.op("Mul", at.grad, positive(at, at.op("Sub", hi, x)))
    return at.op("Mul", at.grad, between(at, x, lo, hi))


def _bound(at: Backward, index: int) -> ir.Value | float | None:
    """Return a bound; ``None`` if there is none, or one that no float exceeds."""
    given = at.given(index)
    known = at.trace.array(given)
    if known is None:
        return given
    number = float(known.reshape(()))
    # the largest float of the network's type is how exporters write that there is no bound
    return None if abs(number) >= float(np.finfo(known.dtype).max) else number


def _by_bound(at: Backward, index: int, beyond: str) -> ir.Value | None:
    bound = at.given(index)
    if bound is None:
        return None
    part = at.op("Mul", at.grad, at.mask(at.op(beyond, at.x(0), bound)))
    return at.op("Reshape", at.op("ReduceSum", part, keepdims=0), list(at.shape(bound)))


@gradient("Swish")
@gradient("QuickGelu", domain="com.microsoft")
def swish(at: Backward) -> Grads:
    """``x s``, ``s = sigmoid(alpha x)``; ``d/dx = s + alpha y (1 - s)``."""
    alpha = at.number("alpha", 1.0 if at.node.op_type == "Swish" else 1.702)
    s = at.op("Sigmoid", at.op("Mul", at.x(0), alpha) if alpha != 1 else at.x(0))
    bend = at.op("Mul", at.op("Mul", at.y, alpha), at.op("Sub", 1.0, s))
    return (at.op("Mul", at.grad, at.op("Add", s, bend)),)


@gradient("Sigmoid")
def sigmoid(at: Backward) -> Grads:
    """``d/dx = y (1 - y)``."""
    return (at.op("Mul", at.op("Mul", at.grad, at.y), at.op("Sub", 1.0, at.y)),)


@gradient("HardSigmoid")
def hard_sigmoid(at: Backward) -> Grads:
    """``clip(alpha x + beta, 0, 1)``."""
    inside = at.op("Mul", between(at, at.y, 0.0, 1.0), at.number("alpha", 0.2))
    return (at.op("Mul", at.grad, inside),)


@gradient("HardSwish")
def hard_swish(at: Backward) -> Grads:
    """``x h``, ``h = clip(x / 6 + 1/2, 0, 1)``; ``d/dx = h + x/6 · 1[0 < h < 1]``."""
    x = at.x(0)
    h = at.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    inside = at.op("Mul", x, at.op("Mul", between(at, h, 0.0, 1.0), 1 / 6))
    return (at.op("Mul", at.grad, at.op("Add", h, inside)),)


@gradient("Mish")
def mish(at: Backward) -> Grads:
    """``x t``, ``t = tanh(log(1 + exp x))``; ``d/dx = t + x (1 - t²) sigmoid(x)``.

    With ``n = exp(x) (exp(x) + 2)``, ``t = n / (n + 2)`` and ``1 - t = 2 / (n + 2)``.
    """
    x = at.x(0)
    e = at.op("Exp", at.op("Min", x, _MISH_IS_LINEAR))
    n = at.op("Mul", e, at.op("Add", e, 2.0))
    rest = at.op("Div", 2.0, at.op("Add", n, 2.0))
    t = at.op("Sub", 1.0, rest)
    bend = at.op("Mul", rest, at.op("Add", t, 1.0))
    bend = at.op("Mul", bend, at.op("Mul", x, at.op("Sigmoid", x)))
    return (at.op("Mul", at.grad, at.op("Add", t, bend)),)


@gradient("Elu")
def elu(at: Backward) -> Grads:
    """``x`` above 0, ``alpha (exp x - 1)`` below; there, ``d/dx = y + alpha``."""
    return (_exponential(at, 1.0, at.number("alpha", 1.0)),)


@gradient("Selu")
def selu(at: Backward) -> Grads:
    """``gamma x`` above 0, ``gamma alpha (exp x - 1)`` below."""
    alpha, gamma = at.number("alpha", 1.67326319), at.number("gamma", 1.05070102)
    return (_exponential(at, gamma, gamma * alpha),)


def _exponential(at: Backward, above: float, below: float) -> ir.Value:
    slope = at.op("Add", at.y, below)
    if above == below:
        slope = at.op("Min", slope, above)
    else:
        slope = at.op("Where", at.op("Greater", at.x(0), 0.0), above, slope)
    return at.op("Mul", at.grad, slope)


@gradient("Celu")
def celu(at: Backward) -> Grads:
    """``max(0, x) + min(0, alpha (exp(x / alpha) - 1))``; ``d/dx = exp(min(x, 0) / alpha)``."""
    below = at.op("Div", at.op("Min", at.x(0), 0.0), at.number("alpha", 1.0))
    return (at.op("Mul", at.grad, at.op("Exp", below)),)


@gradient("Gelu")
@gradient("Gelu", domain="com.microsoft")
def gelu(at: Backward) -> Grads:
    """``x Φ(x)``; ``d/dx = Φ(x) + x φ(x)``, of the normal distribution or of its approximation."""
    x, square = at.x(0), at.op("Mul", at.x(0), at.x(0))
    if at.text("approximate", "none") == "none":
        phi = at.op("Erf", at.op("Mul", x, math.sqrt(0.5)))
        bell = at.op("Exp", at.op("Mul", square, -0.5))
        slope = at.op("Mul", at.op("Mul", x, math.sqrt(0.5 / math.pi)), bell)
    else:
        scale, cubic = math.sqrt(2 / math.pi), 0.044715
        inner = at.op("Add", at.op("Mul", square, scale * cubic), scale)
        phi = at.op("Tanh", at.op("Mul", x, inner))
        rate = at.op("Add", at.op("Mul", square, 1.5 * scale * cubic), 0.5 * scale)
        bend = at.op("Sub", 1.0, at.op("Mul", phi, phi))
        slope = at.op("Mul", at.op("Mul", x, rate), bend)
    half = at.op("Add", at.op("Mul", phi, 0.5), 0.5)
    return (at.op("Mul", at.grad, at.op("Add", half, slope)),)
