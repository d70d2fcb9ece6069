"""AveragePool becomes QLinearAveragePool."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel
from ptq.graph.passes.edit import int_attribute, ints_attribute


@rule("AveragePool")
def fuse_average_pool(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse an average over windows with its requantization."""
    x = rewriter.activation(node.inputs[0])
    if any(dilation != 1 for dilation in ints_attribute(node, "dilations")):
        raise UnfitError("the kernel knows no dilations")
    if int_attribute(node, "ceil_mode", 0) and int_attribute(node, "count_include_pad", 0):
        # it divides the windows that reach beyond the padding by their whole size
        raise UnfitError("the kernel counts what ceil_mode adds as padding")
    result = rewriter.required_output(node, x.params.dtype)
    inputs = [*rewriter.triple(x), *rewriter.scale_and_zero_point(result.params)]
    attributes = [a for a in node.attributes.values() if a.name != "dilations"]
    fused = kernel("QLinearAveragePool", inputs, attributes, domain=MICROSOFT)
    return rewriter.quantizing(node, fused, result)
