"""Add and Mul become QLinearAdd and QLinearMul."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel


@rule("Add", "Mul")
def fuse_arithmetic(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a sum or a product of two operands of one type, broadcast or not."""
    a, b = map(rewriter.activation, node.inputs)
    if a.params.dtype != b.params.dtype:
        raise UnfitError("its operands have codes of different types")
    result = rewriter.required_output(node, a.params.dtype)
    inputs = [*rewriter.triple(a), *rewriter.triple(b)]
    inputs += rewriter.scale_and_zero_point(result.params)
    fused = kernel(f"QLinear{node.op_type}", inputs, domain=MICROSOFT)
    return rewriter.quantizing(node, fused, result)
