"""MatMul with QuantizeLinear after it becomes QLinearMatMul."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.matrices import factors
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import Rewriter, kernel


@rule("MatMul")
def fuse_matmul(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a product of matrices, or of batches of them, that is requantized."""
    a, b = factors(node, rewriter)
    result = rewriter.output(node, a.params.dtype)
    if result is None:
        return False
    inputs = [*rewriter.triple(a), *rewriter.weight_triple(b)]
    inputs += rewriter.scale_and_zero_point(result.params)
    return rewriter.quantizing(node, kernel("QLinearMatMul", inputs), result)
