"""Gemm becomes QGemm, which puts out codes or floats."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.matrices import int32_bias, weight
from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel
from ptq.graph.passes.edit import float_attribute, input_at, int_attribute


@rule("Gemm")
def fuse_gemm(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a product of matrices, its bias, and the requantization if there is one."""
    factors = (float_attribute(node, name, 1.0) for name in ("alpha", "beta"))
    if any(factor != 1.0 for factor in factors) or int_attribute(node, "transA", 0):
        raise UnfitError("its alpha, beta or transA is not the default")
    transposed = int_attribute(node, "transB", 0)
    a = rewriter.activation(node.inputs[0])
    b = weight(node.inputs[1], a.params, (0, -2) if transposed else (1, -1))
    bias = int32_bias(input_at(node, 2), a.params, b.params)
    # unlike its siblings, it wants scale and zero point of the weight in one shape
    inputs: list[ir.Value | None] = [*rewriter.triple(a), *rewriter.triple(b)]
    attributes = [ir.AttrInt64("transB", transposed)]
    result = rewriter.output(node, a.params.dtype)
    if result is None:
        inputs += [bias] if bias is not None else []
        fused = kernel("QGemm", inputs, attributes, domain=MICROSOFT)
        return rewriter.replacing([node], fused)
    inputs += [bias, *rewriter.scale_and_zero_point(result.params)]
    fused = kernel("QGemm", inputs, attributes, domain=MICROSOFT)
    return rewriter.quantizing(node, fused, result)
