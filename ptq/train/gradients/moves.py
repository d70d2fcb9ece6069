"""Gradients of operators that move values, repeat them, or leave some out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient

Grads = Sequence["ir.Value | None"]


@gradient("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(at: Backward) -> Grads:
    """The same values in another shape."""
    return (at.op("Reshape", at.grad, list(at.shape(at.x(0))), allowzero=1),)


@gradient("Transpose")
def transpose(at: Backward) -> Grads:
    """Axes in another order."""
    rank = len(at.shape(at.x(0)))
    order = at.integers("perm", range(rank)[::-1])
    return (at.op("Transpose", at.grad, perm=[int(i) for i in np.argsort(order)]),)


@gradient("Expand")
def expand(at: Backward) -> Grads:
    """Values repeated along axes of length 1."""
    return (at.reduced(at.grad, at.shape(at.y), at.x(0)),)


@gradient("Tile")
def tile(at: Backward) -> Grads:
    """The whole repeated along axes."""
    repeats = at.array(1)
    assert repeats is not None, "repeats are given"
    split: list[int] = []
    axes: list[int] = []
    for count, n in zip(repeats.tolist(), at.shape(at.x(0)), strict=True):
        if count != 1:
            axes.append(len(split))
            split.append(count)
        split.append(n)
    if not axes:
        return (at.grad,)
    return (at.op("ReduceSum", at.op("Reshape", at.grad, split), axes, keepdims=0),)


@gradient("Concat")
def concat(at: Backward) -> Grads:
    """Operands one after the other."""
    values = [v for v in at.node.inputs if v is not None]
    if len(values) == 1:
        return (at.grad,)
    axis = at.integer("axis", 0)
    sizes = [at.shape(v)[axis] for v in values]
    return at.tape.ops("Split", at.grad, sizes, outputs=len(values), axis=axis)


@gradient("Split")
def split(at: Backward) -> Grads:
    """Parts along an axis; those of which nothing is read get 0."""
    parts = [
        at.op("Expand", 0.0, list(at.shape(output))) if grad is None else grad
        for output, grad in zip(at.node.outputs, at.grads, strict=True)
    ]
    return (at.op("Concat", *parts, axis=at.integer("axis", 0)),)


@gradient("Slice")
def slices(at: Backward) -> Grads:
    """Every ``step``-th value of a range, along axes; the others get 0."""
    whole, taken = at.shape(at.x(0)), list(at.shape(at.y))
    if 0 in taken:
        return (None,)
    grad, before = at.grad, [0] * len(whole)
    for axis, cut in _cuts(at):
        first, _, step = cut.indices(whole[axis])
        last = first + (taken[axis] - 1) * step
        if last < first:
            grad = at.op("Slice", grad, [-1], [-whole[axis] - 1], [axis], [-1])
        if abs(last - first) >= taken[axis]:
            grad = _dilated(at, grad, taken, axis, abs(step))
        before[axis], taken[axis] = min(first, last), abs(last - first) + 1
    after = [n - start - count for n, start, count in zip(whole, before, taken, strict=True)]
    return (at.op("Pad", grad, [*before, *after]) if any(before) or any(after) else grad,)


def _cuts(at: Backward) -> list[tuple[int, slice]]:
    """Return axes, and what is taken along each."""
    starts, ends, axes, steps = (at.array(i) for i in range(1, 5))
    assert starts is not None, "starts are given"
    assert ends is not None, "ends are given"
    rank = len(at.shape(at.x(0)))
    along = range(len(starts)) if axes is None else [int(i) % rank for i in axes]
    strides = [1] * len(starts) if steps is None else steps.tolist()
    ranges = zip(starts.tolist(), ends.tolist(), strides, strict=True)
    return list(zip(along, (slice(*cut) for cut in ranges), strict=True))


def _dilated(at: Backward, grad: ir.Value, shape: Sequence[int], axis: int, step: int) -> ir.Value:
    """Return a gradient with ``step - 1`` zeros between its values along an axis."""
    head, count, tail = shape[:axis], shape[axis], shape[axis + 1 :]
    pads = [0] * (2 * len(shape) + 2)
    pads[len(shape) + axis + 2] = step - 1
    grad = at.op("Pad", at.op("Reshape", grad, [*head, count, 1, *tail]), pads)
    grad = at.op("Reshape", grad, [*head, count * step, *tail])
    return at.op("Slice", grad, [0], [(count - 1) * step + 1], [axis])


@gradient("DepthToSpace")
def depth_to_space(at: Backward) -> Grads:
    """Blocks of channels become blocks of pixels."""
    block = at.integer("blocksize", 1)
    if at.text("mode", "DCR") == "DCR":
        return (at.op("SpaceToDepth", at.grad, blocksize=block),)
    batch, channels, height, width = at.shape(at.y)
    apart = [batch, channels, height // block, block, width // block, block]
    grad = at.op("Transpose", at.op("Reshape", at.grad, apart), perm=[0, 1, 3, 5, 2, 4])
    return (at.op("Reshape", grad, list(at.shape(at.x(0)))),)


@gradient("SpaceToDepth")
def space_to_depth(at: Backward) -> Grads:
    """Blocks of pixels become blocks of channels."""
    return (at.op("DepthToSpace", at.grad, blocksize=at.integer("blocksize", 1), mode="DCR"),)


@gradient("Trilu")
def trilu(at: Backward) -> Grads:
    """The triangle above or below a diagonal; the rest is 0."""
    return (at.op("Trilu", at.grad, at.given(1), upper=at.integer("upper", 1)),)


@gradient("CumSum")
def cumsum(at: Backward) -> Grads:
    """Sums up to each place along an axis: the gradient is summed from the other end."""
    attributes = {"exclusive": at.integer("exclusive", 0), "reverse": 1 - at.integer("reverse", 0)}
    return (at.op("CumSum", at.grad, at.x(1), **attributes),)


@gradient("TopK")
def topk(at: Backward) -> Grads:
    """The largest values along an axis: the gradient goes back to where each one stands."""
    places = at.node.outputs[1]
    if not places.name:
        raise NoGradientError("it does not put out where the values stand")
    zeros = at.op("Expand", 0.0, list(at.shape(at.x(0))))
    axis = at.integer("axis", -1)
    return (at.op("ScatterElements", zeros, places, at.grad, axis=axis),)
