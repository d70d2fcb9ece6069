"""Gradients of reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient
from ptq.train.gradients.masks import sign

Grads = Sequence["ir.Value | None"]


@gradient("ReduceSum")
def reduce_sum(at: Backward) -> Grads:
    """Every summand gets the gradient of its sum."""
    return (_spread(at, at.grad),)


@gradient("ReduceMean")
def reduce_mean(at: Backward) -> Grads:
    """Every value gets its share of the gradient of the mean."""
    shape = at.shape(at.x(0))
    count = int(np.prod([shape[i] for i in _axes(at)]))
    return (_spread(at, at.op("Mul", at.grad, 1 / max(count, 1))),)


@gradient("ReduceMax", "ReduceMin")
def reduce_extreme(at: Backward) -> Grads:
    """The gradient goes to the value that is the result; equal ones share it."""
    chosen = at.mask(at.op("Equal", at.x(0), _spread(at, at.y)))
    count = at.op("ReduceSum", chosen, _axes(at), keepdims=1, noop_with_empty_axes=1)
    share = at.op("Div", _kept(at, at.grad), count)
    return (at.op("Mul", chosen, share),)


@gradient("ReduceProd")
def reduce_prod(at: Backward) -> Grads:
    """The product of the others: of one 0 it is that of the rest, of several it is 0."""
    axes, x = _axes(at), at.x(0)
    zero = at.op("Equal", x, 0.0)
    safe = at.op("Where", zero, 1.0, x)
    zeros = at.op("ReduceSum", at.mask(zero), axes, keepdims=1, noop_with_empty_axes=1)
    rest = at.op("ReduceProd", safe, axes, keepdims=1, noop_with_empty_axes=1)
    alone = at.op("Mul", rest, at.mask(at.op("Less", zeros, 1.5)))
    others = at.op("Where", zero, alone, at.op("Div", _kept(at, at.y), safe))
    return (at.op("Mul", _spread(at, at.grad), others),)


@gradient("ReduceL1")
def reduce_l1(at: Backward) -> Grads:
    """``Σ |x|``."""
    _reduces(at)
    return (at.op("Mul", _spread(at, at.grad), sign(at, at.x(0))),)


@gradient("ReduceL2")
def reduce_l2(at: Backward) -> Grads:
    """``√Σ x²``; ``d/dx = x / y``, 0 where all are 0."""
    _reduces(at)
    least = float(np.finfo(at.tape.dtype).tiny)
    size = at.op("Max", _kept(at, at.y), least)
    return (at.op("Mul", _kept(at, at.grad), at.op("Div", at.x(0), size)),)


@gradient("ReduceSumSquare")
def reduce_sum_square(at: Backward) -> Grads:
    """``Σ x²``."""
    _reduces(at)
    return (at.op("Mul", _spread(at, at.op("Mul", at.grad, 2.0)), at.x(0)),)


@gradient("ReduceLogSum")
def reduce_log_sum(at: Backward) -> Grads:
    """``log Σ x``; ``d/dx = exp -y``."""
    _reduces(at)
    return (_spread(at, at.op("Mul", at.grad, at.op("Exp", at.op("Neg", at.y)))),)


@gradient("ReduceLogSumExp")
def reduce_log_sum_exp(at: Backward) -> Grads:
    """``log Σ exp x``; ``d/dx = exp(x - y)``, at most 1."""
    _reduces(at)
    share = at.op("Exp", at.op("Sub", at.x(0), _kept(at, at.y)))
    return (at.op("Mul", _kept(at, at.grad), share),)


def _spread(at: Backward, result: ir.Value) -> ir.Value:
    """Return what belongs to a result of a reduction at each of the values that were reduced."""
    return at.op("Expand", _kept(at, result), list(at.shape(at.x(0)))) if _axes(at) else result


def _kept(at: Backward, result: ir.Value) -> ir.Value:
    """Return what belongs to a result of a reduction, with axes of length 1 for the reduced."""
    axes = _axes(at)
    if not axes or at.integer("keepdims", 1):
        return result
    return at.op(
        "Reshape", result, [1 if i in axes else n for i, n in enumerate(at.shape(at.x(0)))]
    )


def _axes(at: Backward) -> list[int]:
    """Return the axes that are reduced, from 0 up."""
    rank = len(at.shape(at.x(0)))
    given = at.array(1)
    if given is None or not given.size:
        return [] if at.integer("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(int(i) % rank for i in given)


def _reduces(at: Backward) -> None:
    """Refuse a reduction of no axes, of which runtimes make different things."""
    if not _axes(at) and at.shape(at.x(0)):
        raise NoGradientError("it reduces no axis")
