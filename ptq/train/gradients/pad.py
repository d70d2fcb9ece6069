"""Gradients of padding."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient

Grads = Sequence["ir.Value | None"]


@gradient("Pad", severed=[1, 3])
def pad(at: Backward) -> Grads:
    """What was filled in passes its gradient to where it came from, if from anywhere."""
    shape, mode = at.shape(at.x(0)), at.text("mode", "constant")
    pads, axes = at.array(1), at.array(3)
    assert pads is not None, "padding says how much"
    at.array(2)  # a filler that is computed has a gradient, too, which is not covered
    named = range(len(shape)) if axes is None else [int(a) % len(shape) for a in axes]
    begin, end = [0] * len(shape), [0] * len(shape)
    for i, axis in enumerate(named):
        begin[axis], end[axis] = int(pads[i]), int(pads[i + len(pads) // 2])
    if mode == "constant":
        return (_cropped(at, at.grad, shape, begin, end),)
    if min(*begin, *end) < 0:
        raise NoGradientError(f"it crops, in mode '{mode}'")
    grad = at.grad
    for axis, size in enumerate(shape):
        if begin[axis] or end[axis]:
            grad = _folded(at, grad, mode, (axis, size, begin[axis], end[axis]))
    return (grad,)


def _cropped(
    at: Backward, grad: ir.Value, shape: Sequence[int], begin: list[int], end: list[int]
) -> ir.Value:
    """Take away what was added, and add zeros where something was taken away."""
    if min(*begin, *end) < 0:
        more = [max(-p, 0) for p in (*begin, *end)]
        grad = at.op("Pad", grad, more, 0.0)
    axes = [i for i in range(len(shape)) if begin[i] > 0 or end[i] > 0]
    if not axes:
        return grad
    starts = [max(begin[i], 0) for i in axes]
    stops = [start + shape[i] for start, i in zip(starts, axes, strict=True)]
    return at.op("Slice", grad, starts, stops, axes)


def _folded(at: Backward, grad: ir.Value, mode: str, along: tuple[int, int, int, int]) -> ir.Value:
    """Add to the gradient of the inner elements that of their copies.

    Args:
        at: the operator.
        grad: of the padded values, along the axis.
        mode: what they are copies of.
        along: the axis, its size, and how many copies there are before and behind.
    """
    axis, size, begin, end = along
    rank = len(at.shape(at.x(0)))
    if max(begin, end) > (size if mode != "reflect" else size - 1) and mode != "edge":
        raise NoGradientError(f"it copies an element more than once, in mode '{mode}'")
    parts = [at.op("Slice", grad, [begin], [begin + size], [axis])]
    for count, first, place in ((begin, 0, 0), (end, begin + size, 1)):
        if not count:
            continue
        copies = at.op("Slice", grad, [first], [first + count], [axis])
        if mode == "edge":
            copies, count = at.op("ReduceSum", copies, [axis], keepdims=1), 1
            start = (size - 1) * place
        elif mode == "reflect":
            copies = at.op("Slice", copies, [-1], [-(2**31)], [axis], [-1])
            start = size - 1 - count if place else 1
        elif mode == "wrap":
            start = 0 if place else size - count
        else:
            raise NoGradientError(f"mode '{mode}'")
        around = [0] * 2 * rank
        around[axis], around[rank + axis] = start, size - start - count
        parts.append(at.op("Pad", copies, around, 0.0) if any(around) else copies)
    return parts[0] if len(parts) == 1 else at.op("Sum", *parts)
