"""Gradients of pooling."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient
from ptq.train.gradients.separable import by_matrices
from ptq.train.gradients.windows import Windows, windows_of
from ptq.train.tape import Attribute

Grads = Sequence["ir.Value | None"]


@gradient("MaxPool")
def max_pool(at: Backward) -> Grads:
    """The gradient goes to the element that was the largest, the first of equals."""
    x, shape = at.x(0), at.shape(at.x(0))
    if at.integer("storage_order", 0):
        raise NoGradientError("it counts columns first")
    kept = ("kernel_shape", "strides", "dilations", "ceil_mode", "auto_pad", "pads")
    attributes: dict[str, Attribute] = {
        name: at.node.attributes[name].value for name in kept if name in at.node.attributes
    }
    _, indices = at.tape.ops("MaxPool", x, outputs=2, domain="", **attributes)
    zeros = at.op("Expand", 0.0, [prod(shape)])
    flat = [at.op("Reshape", value, [-1]) for value in (indices, at.grad)]
    found = at.op("ScatterElements", zeros, *flat, axis=0, reduction="add")
    return (at.op("Reshape", found, list(shape)),)


@gradient("AveragePool")
def average_pool(at: Backward) -> Grads:
    """Every element of a window gets its share; a mean over axes is one matrix for each axis."""
    size, out = at.shape(at.x(0))[2:], at.shape(at.y)[2:]
    kernel = at.integers("kernel_shape", [])
    windows = windows_of(at, kernel, size, out)
    counted = bool(at.integer("count_include_pad", 0))
    pads = at.integers("pads", [0] * 2 * len(kernel))[len(kernel) :]
    if at.text("auto_pad", "NOTSET") != "NOTSET":
        pads = [max(e, 0) for e in windows.end]
    matrices = {
        axis: _means(windows, i, pads[i] if counted else None)
        for i, axis in enumerate(windows.axes)
    }
    return (by_matrices(at.tape, at.grad, matrices, 2 + len(kernel)),)


@gradient("GlobalAveragePool")
def global_average_pool(at: Backward) -> Grads:
    """Every element of an image gets an equal share."""
    shape = at.shape(at.x(0))
    share = at.op("Mul", at.grad, 1.0 / prod(shape[2:]))
    return (at.op("Expand", share, list(shape)),)


@gradient("GlobalMaxPool")
def global_max_pool(at: Backward) -> Grads:
    """The gradient goes to the element that is the largest, the first of equals."""
    shape = at.shape(at.x(0))
    batch, channels, points = *shape[:2], prod(shape[2:])
    flat = at.op("Reshape", at.x(0), [batch, channels, points])
    largest = at.op("ArgMax", flat, axis=2, keepdims=1)
    chosen = at.op("Equal", largest, np.arange(points).reshape(1, 1, -1))
    grad = at.op("Reshape", at.grad, [batch, channels, 1])
    return (at.op("Reshape", at.op("Where", chosen, grad, 0.0), list(shape)),)


def _means(w: Windows, i: int, pad: int | None) -> np.ndarray:
    """Return the matrix of the means along one axis, (windows, elements of the image).

    Args:
        w: the windows.
        i: the axis, of the spatial ones.
        pad: the padding behind the image if padding counts, or ``None``. What a window covers
            behind that, because their number was rounded up, never counts.
    """
    matrix, counts = np.zeros((w.out[i], w.size[i])), np.zeros(w.out[i])
    for row in range(w.out[i]):
        for tap in range(w.kernel[i]):
            place = row * w.strides[i] + tap * w.dilations[i] - w.begin[i]
            inside = 0 <= place < w.size[i]
            matrix[row, place if inside else 0] += inside
            counts[row] += inside or (pad is not None and place < w.size[i] + pad)
    return matrix / counts[:, None]
