"""Gradients of transposed convolutions: those of the convolution that goes back."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, NoGradientError, gradient
from ptq.train.gradients.convolution import Convolution, by_weight, convolved
from ptq.train.gradients.windows import windows_of

Grads = Sequence["ir.Value | None"]


@gradient("ConvTranspose")
def conv_transpose(at: Backward) -> Grads:
    """The convolution from the result to the image has the same weight."""
    if at.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or at.integers("output_shape", []):
        raise NoGradientError("it finds its padding by itself")
    x, weight = at.x(0), at.x(1)
    image, kernel, result = at.shape(x), at.shape(weight), at.shape(at.y)
    windows = windows_of(at, kernel[2:], result[2:], image[2:])
    back = Convolution(image[0], result[1], image[1], at.integer("group", 1), windows)
    bias = at.given(2)
    return (
        convolved(at.tape, back, at.grad, weight),
        by_weight(at.tape, at.variants, back, at.grad, x) if at.wants(weight) else None,
        None if bias is None else at.op("ReduceSum", at.grad, [0, *windows.axes], keepdims=0),
    )
