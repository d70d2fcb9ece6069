"""Where becomes QLinearWhere."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel


@rule("Where")
def fuse_where(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a choice between two operands of one type with its requantization."""
    condition, *operands = node.inputs
    x, y = map(rewriter.activation, operands)
    if x.params.dtype != y.params.dtype:
        raise UnfitError("its operands have codes of different types")
    result = rewriter.required_output(node, x.params.dtype)
    inputs = [condition, *rewriter.triple(x), *rewriter.triple(y)]
    inputs += rewriter.scale_and_zero_point(result.params)
    fused = kernel("QLinearWhere", inputs, domain=MICROSOFT)
    return rewriter.quantizing(node, fused, result)
