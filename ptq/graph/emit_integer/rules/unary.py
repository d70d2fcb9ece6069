"""Sigmoid, LeakyRelu and GlobalAveragePool become their QLinear forms."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel


@rule("Sigmoid", "LeakyRelu", "GlobalAveragePool")
def fuse_unary(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse an operator of one operand with its requantization; attributes are the same."""
    x = rewriter.activation(node.inputs[0])
    result = rewriter.required_output(node, x.params.dtype)
    inputs = [*rewriter.triple(x), *rewriter.scale_and_zero_point(result.params)]
    attributes = node.attributes.values()
    fused = kernel(f"QLinear{node.op_type}", inputs, attributes, domain=MICROSOFT)
    return rewriter.quantizing(node, fused, result)
