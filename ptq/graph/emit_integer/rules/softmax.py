"""Softmax becomes QLinearSoftmax."""

from __future__ import annotations

import math

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel
from ptq.graph.passes.edit import int_attribute

#: Since then a Softmax runs over one axis; what was older is converted before.
_ONE_AXIS = 13

_LARGEST_INT8 = 127


@rule("Softmax")
def fuse_softmax(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a softmax over one axis with its requantization."""
    x = rewriter.activation(node.inputs[0])
    result = rewriter.required_output(node, x.params.dtype)
    # probability 1 is the largest code; the kernel does not saturate int8, it wraps
    one = math.floor(1.0 / result.params.scales.item()) + int(result.params.zeros.item())
    if x.params.dtype == ir.DataType.INT8 and one > _LARGEST_INT8:
        raise UnfitError("the kernel does not saturate int8, and 1 is beyond the largest code")
    inputs = [*rewriter.triple(x), *rewriter.scale_and_zero_point(result.params)]
    axis = int_attribute(node, "axis", -1)
    attributes = [ir.AttrInt64("axis", axis), ir.AttrInt64("opset", _ONE_AXIS)]
    fused = kernel("QLinearSoftmax", inputs, attributes, domain=MICROSOFT)
    return rewriter.quantizing(node, fused, result)
