"""Gradients of reading and writing elements by their place."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import constant
from ptq.train.gradients.base import Backward, NoGradientError, gradient

Grads = Sequence["ir.Value | None"]


@gradient("Gather", severed=[1])
def gather(at: Backward) -> Grads:
    """What was read gets the gradient; what was read twice, the sum."""
    shape, chosen = at.shape(at.x(0)), at.shape(at.x(1))
    rank, count = len(shape), len(chosen)
    axis = at.integer("axis", 0) % rank
    known = constant(at.x(1))
    if known is not None and known.size == 1:
        return (_placed(at, shape, axis, int(known.reshape(())) % shape[axis]),)
    rest = [*shape[:axis], *shape[axis + 1 :]]
    read = list(range(axis, axis + count))
    others = [i for i in range(rank - 1 + count) if i not in read]
    grad = at.grad if axis == 0 else at.op("Transpose", at.grad, perm=[*read, *others])
    grad = at.op("Reshape", grad, [prod(chosen), *rest])
    places = at.op("Reshape", at.x(1), [prod(chosen), 1])
    places = at.op("Cast", places, to=int(ir.DataType.INT64))
    zeros = at.op("Expand", 0.0, [shape[axis], *rest])
    found = at.op("ScatterND", zeros, places, grad, reduction="add")
    back = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
    return (found if axis == 0 else at.op("Transpose", found, perm=back),)


@gradient("GatherElements", severed=[1])
def gather_elements(at: Backward) -> Grads:
    """What was read gets the gradient; what was read twice, the sum."""
    zeros = at.op("Expand", 0.0, list(at.shape(at.x(0))))
    axis = at.integer("axis", 0)
    found = at.op("ScatterElements", zeros, at.x(1), at.grad, axis=axis, reduction="add")
    return (found,)


@gradient("GatherND", severed=[1])
def gather_nd(at: Backward) -> Grads:
    """What was read gets the gradient; what was read twice, the sum."""
    if at.integer("batch_dims", 0):
        raise NoGradientError("it has batch dimensions")
    zeros = at.op("Expand", 0.0, list(at.shape(at.x(0))))
    return (at.op("ScatterND", zeros, at.x(1), at.grad, reduction="add"),)


@gradient("ScatterElements", severed=[1])
def scatter_elements(at: Backward) -> Grads:
    """What was overwritten gets no gradient; what was written, that of its place."""
    axis, places = at.integer("axis", 0), at.x(1)
    by_updates = at.op("GatherElements", at.grad, places, axis=axis)
    if at.text("reduction", "none") == "add":
        return at.grad, None, by_updates
    _refuse_reduction(at)
    zeros = at.op("Expand", 0.0, list(at.shape(places)))
    return at.op("ScatterElements", at.grad, places, zeros, axis=axis), None, by_updates


@gradient("ScatterND", severed=[1])
def scatter_nd(at: Backward) -> Grads:
    """What was overwritten gets no gradient; what was written, that of its place."""
    by_updates = at.op("GatherND", at.grad, at.x(1))
    if at.text("reduction", "none") == "add":
        return at.grad, None, by_updates
    _refuse_reduction(at)
    zeros = at.op("Expand", 0.0, list(at.shape(at.x(2))))
    return at.op("ScatterND", at.grad, at.x(1), zeros), None, by_updates


def _refuse_reduction(at: Backward) -> None:
    reduction = at.text("reduction", "none")
    if reduction != "none":
        raise NoGradientError(f"reduction '{reduction}'")


def _placed(at: Backward, shape: Sequence[int], axis: int, place: int) -> ir.Value:
    """Return the gradient of one slice, with zeros around it."""
    grad = at.op("Reshape", at.grad, [1 if i == axis else n for i, n in enumerate(shape)])
    around = np.zeros((2, len(shape)), np.int64)
    around[:, axis] = place, shape[axis] - 1 - place
    return at.op("Pad", grad, around.ravel(), 0.0) if around.any() else grad
