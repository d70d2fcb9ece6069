"""Gradients of reductions."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient

Grads = Sequence["ir.Value | None"]


@gradient("ReduceSum")
def reduce_sum(at: Backward) -> Grads:
    """Every summand gets the gradient of its sum."""
    return (_spread(at, at.grad),)


def _spread(at: Backward, grad: ir.Value) -> ir.Value:
    """Return what belongs to a result of a reduction at each of the values that were reduced."""
    shape, axes = at.shape(at.x(0)), _axes(at)
    if not axes:
        return grad
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    return at.op("Expand", at.op("Reshape", grad, kept), list(shape))


def _axes(at: Backward) -> list[int]:
    """Return the axes that are reduced, from 0 up."""
    rank = len(at.shape(at.x(0)))
    given = at.array(1)
    if given is None or not given.size:
        return [] if at.integer("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(int(i) % rank for i in given)
