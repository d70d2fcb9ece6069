"""Gradients of normalizations.

Most are ``x̂ = d r``, with ``d`` the distance from the mean and ``r`` the reciprocal of the standard
deviation over some axes; then, for the gradient ``g`` of ``x̂``,
``r (g - mean(g) - x̂ mean(g x̂))`` is that of ``x``.

Reference: Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift", ICML 2015, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient
from ptq.train.gradients.masks import sign

Grads = Sequence["ir.Value | None"]


@gradient("LayerNormalization")
def layer_normalization(at: Backward) -> Grads:
    """Normalizes over the last axes; scale and bias have the shape of these."""
    _first_alone(at)
    x, axes = at.x(0), _last_axes(at)
    normal, rate = _normalized(at, x, axes, at.number("epsilon", 1e-5))
    by_normal = at.op("Mul", at.grad, at.x(1))
    by_x = _through(at, by_normal, normal, rate, axes)
    by_scale = at.op("Mul", at.grad, normal)
    shape, bias = at.shape(x), at.given(2)
    return (
        by_x,
        at.reduced(by_scale, shape, at.x(1)),
        None if bias is None else at.reduced(at.grad, shape, bias),
    )


@gradient("RMSNormalization")
@gradient("SimplifiedLayerNormalization")
@gradient("SimplifiedLayerNormalization", domain="com.microsoft")
def rms_normalization(at: Backward) -> Grads:
    """``x / sqrt(mean(x²) + epsilon)`` over the last axes, scaled."""
    _first_alone(at)
    x, axes = at.x(0), _last_axes(at)
    rate = _rate(at, x, axes, at.number("epsilon", 1e-5))
    normal = at.op("Mul", x, rate)
    by_normal = at.op("Mul", at.grad, at.x(1))
    along = _mean(at, at.op("Mul", by_normal, normal), axes)
    by_x = at.op("Mul", at.op("Sub", by_normal, at.op("Mul", normal, along)), rate)
    return by_x, at.reduced(at.op("Mul", at.grad, normal), at.shape(x), at.x(1))


@gradient("InstanceNormalization")
def instance_normalization(at: Backward) -> Grads:
    """Normalizes each channel of each sample; scale and bias are one number a channel."""
    axes = list(range(2, len(at.shape(at.x(0)))))
    normal, rate = _normalized(at, at.x(0), axes, at.number("epsilon", 1e-5))
    by_normal = at.op("Mul", at.grad, _per_channel(at, at.x(1)))
    return _through(at, by_normal, normal, rate, axes), *_by_scale_and_bias(at, normal)


@gradient("GroupNormalization")
def group_normalization(at: Backward) -> Grads:
    """Normalizes groups of channels of each sample; scale and bias are one number a channel."""
    shape = list(at.shape(at.x(0)))
    if at.shape(at.x(1)) != (shape[1],):
        raise NoGradientError("its scale is not one number a channel")
    groups = [shape[0], at.integer("num_groups", 1), -1]
    x = at.op("Reshape", at.x(0), groups)
    normal, rate = _normalized(at, x, [2], at.number("epsilon", 1e-5))
    by_normal = at.op("Mul", at.grad, _per_channel(at, at.x(1)))
    by_x = _through(at, at.op("Reshape", by_normal, groups), normal, rate, [2])
    by_others = _by_scale_and_bias(at, at.op("Reshape", normal, shape))
    return at.op("Reshape", by_x, shape), *by_others


@gradient("BatchNormalization")
def batch_normalization(at: Backward) -> Grads:
    """Normalizes each channel, by statistics that are given or, in training mode, of the batch."""
    x, epsilon = at.x(0), at.number("epsilon", 1e-5)
    if at.integer("training_mode", 0):
        _first_alone(at)
        axes = _but_channels(at)
        normal, rate = _normalized(at, x, axes, epsilon)
        by_normal = at.op("Mul", at.grad, _per_channel(at, at.x(1)))
        return _through(at, by_normal, normal, rate, axes), *_by_scale_and_bias(at, normal)
    mean, variance = at.x(3), at.x(4)
    rate = at.op("Reciprocal", at.op("Sqrt", at.op("Add", variance, epsilon)))
    factor = at.op("Mul", at.x(1), rate)
    by_x = at.op("Mul", at.grad, _per_channel(at, factor))
    distance = at.op("Sub", x, _per_channel(at, mean))
    by_factor, by_bias = _by_scale_and_bias(at, distance)
    by_scale = at.op("Mul", by_factor, rate)
    by_mean = at.op("Neg", at.op("Mul", by_bias, factor))
    bend = at.op("Mul", at.op("Mul", factor, at.op("Mul", rate, rate)), -0.5)
    return by_x, by_scale, by_bias, by_mean, at.op("Mul", by_factor, bend)


@gradient("MeanVarianceNormalization")
def mean_variance_normalization(at: Backward) -> Grads:
    """``x̂ = d / (σ + 1e-9)``; the addend is nothing beside ``σ`` where there is a gradient."""
    axes = at.integers("axes", [0, 2, 3])
    distance = at.op("Sub", at.x(0), _mean(at, at.x(0), axes))
    deviation = at.op("Sqrt", _mean(at, at.op("Mul", distance, distance), axes))
    rate = at.op("Reciprocal", at.op("Add", deviation, 1e-9))
    return (_through(at, at.grad, at.y, rate, axes),)


@gradient("LpNormalization")
def lp_normalization(at: Backward) -> Grads:
    """``x / |x|`` along an axis, by the sum of magnitudes or the root of that of squares."""
    x, axes = at.x(0), [at.integer("axis", -1)]
    one = at.integer("p", 2) == 1
    size = at.op("ReduceL1" if one else "ReduceL2", x, axes, keepdims=1)
    along = at.op("ReduceSum", at.op("Mul", at.grad, at.y), axes, keepdims=1)
    back = at.op("Mul", sign(at, x) if one else at.y, along)
    least = math.sqrt(float(np.finfo(at.tape.dtype).tiny))
    return (at.op("Div", at.op("Sub", at.grad, back), at.op("Max", size, least)),)


@gradient("LRN")
def lrn(at: Backward) -> Grads:
    """``x / D^β``, ``D = bias + α/size Σ x²`` over the channels around each.

    The sum is a product with a matrix that has a 1 where a channel is in another's window; its
    transpose goes back.
    """
    x, shape, size = at.x(0), at.shape(at.x(0)), at.integer("size", 1)
    share, beta = at.number("alpha", 1e-4) / size, at.number("beta", 0.75)
    offsets = np.arange(shape[1])[None, :] - np.arange(shape[1])[:, None]
    window = (offsets >= -((size - 1) // 2)) & (offsets <= size // 2)
    near = window.astype(at.tape.dtype)
    flat = [shape[0], shape[1], -1]
    squares = at.op("Reshape", at.op("Mul", x, x), flat)
    sums = at.op("Reshape", at.op("MatMul", at.tape.constant(near), squares), list(shape))
    divisor = at.op("Add", at.op("Mul", sums, share), at.number("bias", 1.0))
    direct = at.op("Mul", at.grad, at.op("Pow", divisor, -beta))
    part = at.op("Reshape", at.op("Div", at.op("Mul", at.grad, at.y), divisor), flat)
    back = at.op("Reshape", at.op("MatMul", at.tape.constant(near.T), part), list(shape))
    back = at.op("Mul", at.op("Mul", x, 2 * share * beta), back)
    return (at.op("Sub", direct, back),)


def _normalized(
    at: Backward, x: ir.Value, axes: Sequence[int], epsilon: float
) -> tuple[ir.Value, ir.Value]:
    """Return values less their mean, over their standard deviation, and that one's reciprocal."""
    distance = at.op("Sub", x, _mean(at, x, axes))
    rate = _rate(at, distance, axes, epsilon)
    return at.op("Mul", distance, rate), rate


def _rate(at: Backward, x: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    square = _mean(at, at.op("Mul", x, x), axes)
    return at.op("Reciprocal", at.op("Sqrt", at.op("Add", square, epsilon)))


def _through(
    at: Backward, grad: ir.Value, normal: ir.Value, rate: ir.Value, axes: Sequence[int]
) -> ir.Value:
    """Return the gradient of what was normalized from that of the result."""
    along = at.op("Mul", normal, _mean(at, at.op("Mul", grad, normal), axes))
    centred = at.op("Sub", grad, _mean(at, grad, axes))
    return at.op("Mul", at.op("Sub", centred, along), rate)


def _mean(at: Backward, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    return at.op("ReduceMean", x, list(axes), keepdims=1)


def _by_scale_and_bias(at: Backward, scaled: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the gradients of one factor a channel of some values, and of what is added."""
    axes = _but_channels(at)
    by_scale = at.op("ReduceSum", at.op("Mul", at.grad, scaled), axes, keepdims=0)
    return by_scale, at.op("ReduceSum", at.grad, axes, keepdims=0)


def _per_channel(at: Backward, values: ir.Value) -> ir.Value:
    """Return one number a channel in a shape that broadcasts."""
    return at.op("Reshape", values, [-1] + [1] * (len(at.shape(at.y)) - 2))


def _but_channels(at: Backward) -> list[int]:
    return [0, *range(2, len(at.shape(at.y)))]


def _last_axes(at: Backward) -> list[int]:
    rank = len(at.shape(at.x(0)))
    return list(range(at.integer("axis", -1) % rank, rank))


def _first_alone(at: Backward) -> None:
    if any(grad is not None for grad in at.grads[1:]):
        raise NoGradientError("its statistics are read")
