"""Gradients of a convolution by its image and by its weight, as operators; no rules.

A transposed convolution is the gradient of a convolution by its image, so that its own gradients
are these functions too, with other values in other places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.windows import Windows
from ptq.train.tape import Tape
from ptq.train.variants import Variants, Way


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution in numbers.

    Attributes:
        batch: how many images there are.
        channels: of an image.
        filters: how many channels come out.
        group: in how many groups the channels are.
        windows: on the image.
    """

    batch: int
    channels: int
    filters: int
    group: int
    windows: Windows

    @property
    def image(self) -> tuple[int, ...]:
        """The shape of the images."""
        return self.batch, self.channels, *self.windows.size

    @property
    def result(self) -> tuple[int, ...]:
        """The shape of what comes out."""
        return self.batch, self.filters, *self.windows.out

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.filters, self.channels // self.group, *self.windows.kernel

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has one filter of its own."""
        return self.group == self.channels == self.filters

    @property
    def is_pointwise(self) -> bool:
        """Whether every window is one element, and every element one window."""
        w = self.windows
        return w.size == w.out and set(w.kernel) | set(w.strides) == {1} and not any(w.begin)

    def key(self, of: str) -> str:
        """Return what a choice for this convolution is remembered by."""
        w = self.windows
        parts = (w.size, w.kernel, w.strides, w.dilations, w.begin, w.out)
        numbers = (self.batch, self.channels, self.filters, self.group)
        return " ".join([of, _joined(numbers), *map(_joined, parts)])


def convolved(tape: Tape, conv: Convolution, image: ir.Value, weight: ir.Value) -> ir.Value:
    """Return the result of a convolution.

    Args:
        tape: grows.
        conv: the convolution.
        image: what it is given.
        weight: its weight.
    """
    w = conv.windows
    return tape.op(
        "Conv",
        image,
        weight,
        pads=[*w.begin, *(max(e, 0) for e in w.end)],
        strides=list(w.strides),
        dilations=list(w.dilations),
        group=conv.group,
    )


def by_image(tape: Tape, conv: Convolution, grad: ir.Value, weight: ir.Value) -> ir.Value:
    """Return the gradient by the image.

    Args:
        tape: grows.
        conv: the convolution.
        grad: the gradient of its result.
        weight: its weight.
    """
    if set(conv.windows.strides) == {1}:
        return _by_turned_weight(tape, conv, grad, weight)
    return _by_transposed(tape, conv, grad, weight)


def by_weight(
    tape: Tape, variants: Variants, conv: Convolution, image: ir.Value, grad: ir.Value
) -> ir.Value:
    """Return the gradient by the weight.

    Args:
        tape: grows.
        variants: which way it is computed.
        conv: the convolution.
        image: what it is given.
        grad: the gradient of its result.
    """
    ways, usual = _ways(conv)
    name = variants.choose(conv.key("weight"), ways, (conv.image, conv.result), usual)
    return ways[name](tape, image, grad)


def _ways(conv: Convolution) -> tuple[Mapping[str, Way], str]:
    if conv.is_depthwise:
        ways = {
            "taps": partial(_by_depthwise_taps, conv),
            "grouped": partial(_by_groups, conv),
        }
        if len(conv.windows.kernel) == 2:
            ways["lines"] = partial(_by_depthwise_lines, conv)
        strided = max(conv.windows.strides) > 1
        return ways, "grouped" if strided else [*ways][-1]
    if conv.group > 1:
        return {"taps": partial(_by_taps, conv)}, "taps"
    ways = {"taps": partial(_by_taps, conv), "flat": partial(_by_flat_taps, conv)}
    if len(conv.windows.taps) == 1:
        return ways, "flat" if prod(conv.windows.out) < 128 else "taps"
    ways["apart"] = partial(_by_taps_apart, conv)
    ways["swapped"] = partial(_by_swapped, conv)
    return ways, "apart" if conv.channels >= 32 else "taps"


def _by_turned_weight(tape: Tape, conv: Convolution, grad: ir.Value, weight: ir.Value) -> ir.Value:
    """Convolve the gradient with the weight turned round; all strides are 1."""
    w, group = conv.windows, conv.group
    if not conv.is_depthwise:
        each = conv.filters // group, conv.channels // group
        rank = len(w.kernel)
        if group > 1:
            weight = tape.op("Reshape", weight, [group, *each, *w.kernel])
            perm = [0, 2, 1, *range(3, 3 + rank)]
            weight = tape.op("Transpose", weight, perm=perm)
            weight = tape.op("Reshape", weight, [conv.channels, each[0], *w.kernel])
        else:
            weight = tape.op("Transpose", weight, perm=[1, 0, *w.axes])
    turned = [axis for axis, k in zip(w.axes, w.kernel, strict=True) if k > 1]
    if turned:
        n = len(turned)
        weight = tape.op("Slice", weight, [-1] * n, [-(2**31)] * n, turned, [-1] * n)
    begin = [e - 1 - b for e, b in zip(w.extent, w.begin, strict=True)]
    rows = zip(w.size, w.out, w.extent, begin, strict=True)
    end = [n - o + e - 1 - b for n, o, e, b in rows]
    grad = _cropped(tape, w, grad, begin, end)
    return tape.op(
        "Conv",
        grad,
        weight,
        pads=[max(p, 0) for p in (*begin, *end)],
        dilations=list(w.dilations),
        group=group,
    )


def _cropped(tape: Tape, w: Windows, grad: ir.Value, begin: list[int], end: list[int]) -> ir.Value:
    """Take away the windows that lie in the padding alone: pads below zero."""
    if min(*begin, *end) >= 0:
        return grad
    starts = [max(-b, 0) for b in begin]
    stops = [o - max(-e, 0) for o, e in zip(w.out, end, strict=True)]
    return tape.op("Slice", grad, starts, stops, list(w.axes))


def _by_transposed(tape: Tape, conv: Convolution, grad: ir.Value, weight: ir.Value) -> ir.Value:
    w = conv.windows
    return tape.op(
        "ConvTranspose",
        grad,
        weight,
        pads=[*w.begin, *(max(e, 0) for e in w.end)],
        output_padding=[max(-e, 0) for e in w.end],
        strides=list(w.strides),
        dilations=list(w.dilations),
        group=conv.group,
    )


def _by_taps(conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value) -> ir.Value:
    """For every image, the product of its gradient with its windows; then the sum of all."""
    w, group, batch = conv.windows, conv.group, conv.batch
    each, points = conv.channels // group, prod(w.out)
    padded, shape = w.padded(tape, image), [batch, group, each, points]
    if group == 1:  # matrices of one axis of samples: onnxruntime turns those as it multiplies
        del shape[1]
    parts = [tape.op("Reshape", w.tap(tape, padded, tap), shape) for tap in w.taps]
    columns = parts[0] if len(parts) == 1 else tape.op("Concat", *parts, axis=-2)
    rows = tape.op("Reshape", grad, [*shape[:-2], conv.filters // group, points])
    last = len(shape) - 1
    turned = tape.op("Transpose", columns, perm=[*range(last - 1), last, last - 1])
    found = tape.op("MatMul", rows, turned)
    if batch > 1:
        found = tape.op("ReduceSum", found, [0], keepdims=0)
    return _as_weight(tape, conv, found)


def _by_flat_taps(conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value) -> ir.Value:
    """The product of all gradients with all windows: one matrix each; there are no groups."""
    parts, rows = _flat(conv, tape, image, grad)
    columns = parts[0] if len(parts) == 1 else tape.op("Concat", *parts, axis=0)
    return _as_weight(tape, conv, tape.op("Gemm", rows, columns, transB=1))


def _by_taps_apart(conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value) -> ir.Value:
    """The same, with a product for every element of the window; all windows are never in memory."""
    parts, rows = _flat(conv, tape, image, grad)
    products = [tape.op("Gemm", rows, part, transB=1) for part in parts]
    return _as_weight(tape, conv, tape.op("Concat", *products, axis=1))


def _flat(
    conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value
) -> tuple[list[ir.Value], ir.Value]:
    """Return every element of the windows as a matrix (channels, windows), and the gradient."""
    w, length = conv.windows, conv.batch * prod(conv.windows.out)
    padded = w.padded(tape, _channels_first(tape, conv, image))
    shape = [conv.channels, length]
    parts = [tape.op("Reshape", w.tap(tape, padded, tap), shape) for tap in w.taps]
    rows = tape.op("Reshape", _channels_first(tape, conv, grad), [conv.filters, length])
    return parts, rows


def _by_swapped(conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value) -> ir.Value:
    """Convolve the image with the gradient, samples being channels; there are no groups."""
    w = conv.windows
    image, grad = _channels_first(tape, conv, image), _channels_first(tape, conv, grad)
    return tape.op("Transpose", _correlated(tape, w, image, grad), perm=[1, 0, *w.axes])


def _by_depthwise_taps(conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value) -> ir.Value:
    """For every element of the window, the sum of its products with the gradient."""
    w = conv.windows
    padded, axes = w.padded(tape, image), [0, *w.axes]
    sums = [
        tape.op("ReduceSum", tape.op("Mul", w.tap(tape, padded, tap), grad), axes, keepdims=0)
        for tap in w.taps
    ]
    columns = [tape.op("Reshape", s, [conv.channels, 1]) for s in sums]
    found = columns[0] if len(columns) == 1 else tape.op("Concat", *columns, axis=1)
    return tape.op("Reshape", found, list(conv.weight))


def _by_depthwise_lines(conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value) -> ir.Value:
    """Products of all lines of an image with all lines of its gradient, for two spatial axes.

    Lines lie along the longer axis. More products are made than needed, of all pairs of lines, but
    by products of matrices, and a copy of the image is made for every place of a window along one
    axis, not for all of its elements. A matrix of zeros and ones adds up the pairs that lie as far
    apart as two elements of a window.
    """
    w, count = conv.windows, conv.channels
    short, long = (0, 1) if w.size[0] <= 2 * w.size[1] else (1, 0)  # turning rows costs more
    perm = [1, 2 + short, 0, 2 + long]
    lines, length = w.size[short], conv.batch * w.out[long]
    padded = tape.op("Transpose", image, perm=perm)
    around = [0, 0, 0, w.begin[long], 0, 0, 0, max(w.end[long], 0)]
    if any(around):
        padded = tape.op("Pad", padded, around, 0.0)
    rows = tape.op("Reshape", tape.op("Transpose", grad, perm=perm), [count, w.out[short], length])
    products = []
    for tap in range(w.kernel[long]):
        start = tap * w.dilations[long]
        stop = start + (w.out[long] - 1) * w.strides[long] + 1
        part = tape.op("Slice", padded, [start], [stop], [3], [w.strides[long]])
        part = tape.op("Reshape", part, [count, lines, length])
        product = tape.op("MatMul", rows, tape.op("Transpose", part, perm=[0, 2, 1]))
        products.append(tape.op("Reshape", product, [count, 1, w.out[short] * lines]))
    pairs = products[0] if len(products) == 1 else tape.op("Concat", *products, axis=1)
    met = np.zeros((w.out[short], lines, w.kernel[short]), tape.dtype)
    for line in range(w.out[short]):
        for tap in range(w.kernel[short]):
            place = line * w.strides[short] + tap * w.dilations[short] - w.begin[short]
            if 0 <= place < lines:
                met[line, place, tap] = 1
    found = tape.op("MatMul", pairs, met.reshape(-1, w.kernel[short]))
    if short == 0:
        found = tape.op("Transpose", found, perm=[0, 2, 1])
    return tape.op("Reshape", found, list(conv.weight))


def _by_groups(conv: Convolution, tape: Tape, image: ir.Value, grad: ir.Value) -> ir.Value:
    """Convolve every channel of every image with its own gradient; for depthwise ones."""
    w, count = conv.windows, conv.batch * conv.channels
    found = _correlated(
        tape,
        w,
        tape.op("Reshape", image, [1, count, *w.size]),
        tape.op("Reshape", grad, [count, 1, *w.out]),
        group=count,
    )
    found = tape.op("Reshape", found, [conv.batch, *conv.weight])
    return tape.op("ReduceSum", found, [0], keepdims=0)


def _correlated(
    tape: Tape, w: Windows, image: ir.Value, grad: ir.Value, group: int = 1
) -> ir.Value:
    """Return the products of an image, moved by every element of the window, with a gradient."""
    found = tape.op(
        "Conv",
        image,
        grad,
        pads=[*w.begin, *(max(e, 0) for e in w.end)],
        strides=list(w.dilations),
        dilations=list(w.strides),
        group=group,
    )
    if all(e >= 0 for e in w.end):
        return found
    return tape.op("Slice", found, [0] * len(w.kernel), list(w.kernel), list(w.axes))


def _channels_first(tape: Tape, conv: Convolution, value: ir.Value) -> ir.Value:
    """Return images with the samples behind the channels."""
    return tape.op("Transpose", value, perm=[1, 0, *conv.windows.axes])


def _as_weight(tape: Tape, conv: Convolution, found: ir.Value) -> ir.Value:
    """Return ``(…, filters, taps · channels)`` in the shape of the weight."""
    count, each = len(conv.windows.taps), conv.channels // conv.group
    if count > 1 and each > 1:
        found = tape.op("Reshape", found, [conv.filters, count, each])
        found = tape.op("Transpose", found, perm=[0, 2, 1])
    return tape.op("Reshape", found, list(conv.weight))


def _joined(numbers: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in numbers)
