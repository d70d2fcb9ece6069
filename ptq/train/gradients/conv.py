"""Gradients of convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient
from ptq.train.gradients.convolution import Convolution, by_image, by_weight
from ptq.train.gradients.windows import windows_of

Grads = Sequence["ir.Value | None"]


@gradient("Conv")
def conv(at: Backward) -> Grads:
    """A convolution of any number of axes, grouped or not, and its bias."""
    x, weight = at.x(0), at.x(1)
    image, kernel, result = at.shape(x), at.shape(weight), at.shape(at.y)
    windows = windows_of(at, kernel[2:], image[2:], result[2:])
    shape = Convolution(image[0], image[1], result[1], at.integer("group", 1), windows)
    bias = at.given(2)
    return (
        by_image(at.tape, shape, at.grad, weight) if at.wants(x) else None,
        by_weight(at.tape, at.variants, shape, x, at.grad) if at.wants(weight) else None,
        None if bias is None else at.op("ReduceSum", at.grad, [0, *windows.axes], keepdims=0),
    )
