"""Conv becomes QLinearConv."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.matrices import int32_bias, weight
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import Rewriter, kernel
from ptq.graph.passes.edit import input_at


@rule("Conv")
def fuse_conv(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a convolution of any rank, its bias, and the requantization."""
    x = rewriter.activation(node.inputs[0])
    w = weight(node.inputs[1], x.params, (0,))
    bias = int32_bias(input_at(node, 2), x.params, w.params)
    result = rewriter.required_output(node, x.params.dtype)
    inputs = [*rewriter.triple(x), *rewriter.weight_triple(w)]
    inputs += rewriter.scale_and_zero_point(result.params)
    if bias is not None:
        inputs.append(bias)
    fused = kernel("QLinearConv", inputs, node.attributes.values())
    return rewriter.quantizing(node, fused, result)
