"""MatMul with a float output becomes MatMulIntegerToFloat, together with the bias added to it."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.matrices import added_bias, columns, factors
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel


@rule("MatMul")
def fuse_matmul_float(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a product of matrices, or of batches of them, that is wanted in float."""
    a, b = factors(node, rewriter)
    if rewriter.output(node, a.params.dtype) is not None:
        return False
    bias = added_bias(node.outputs[0], columns(b.codes), rewriter)
    a_codes, a_scale, a_zero_point = rewriter.triple(a)
    b_codes, b_scale, b_zero_point = rewriter.weight_triple(b)
    inputs = [a_codes, b_codes, a_scale, b_scale, a_zero_point, b_zero_point]
    nodes = [node]
    if bias is not None:
        inputs.append(bias.vector)
        nodes.append(bias.node)
    return rewriter.replacing(nodes, kernel("MatMulIntegerToFloat", inputs, domain=MICROSOFT))
