"""Gradients of softmax and of its logarithm."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient

Grads = Sequence["ir.Value | None"]


@gradient("Softmax")
def softmax(at: Backward) -> Grads:
    """``(g - Σ g y) y``, the sum along the axis."""
    axis = at.integer("axis", -1)
    mean = at.op("ReduceSum", at.op("Mul", at.grad, at.y), [axis], keepdims=1)
    return (at.op("Mul", at.op("Sub", at.grad, mean), at.y),)


@gradient("LogSoftmax")
def log_softmax(at: Backward) -> Grads:
    """``g - exp(y) Σ g``, the sum along the axis."""
    total = at.op("ReduceSum", at.grad, [at.integer("axis", -1)], keepdims=1)
    return (at.op("Sub", at.grad, at.op("Mul", at.op("Exp", at.y), total)),)
