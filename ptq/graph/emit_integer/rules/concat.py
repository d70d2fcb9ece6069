"""Concat runs on codes where all scales are equal, and else becomes QLinearConcat."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel


@rule("Concat")
def fuse_concat(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a concatenation with its requantization."""
    parts = [rewriter.activation(value) for value in node.inputs]
    dtype = parts[0].params.dtype
    if any(part.params.dtype != dtype for part in parts):
        raise UnfitError("its operands have codes of different types")
    result = rewriter.required_output(node, dtype)
    attributes = node.attributes.values()
    if all(part.params.same(result.params) for part in parts):
        fused = kernel("Concat", [part.codes for part in parts], attributes)
    else:
        inputs = [*rewriter.scale_and_zero_point(result.params)]
        for part in parts:
            inputs += rewriter.triple(part)
        fused = kernel("QLinearConcat", inputs, attributes, domain=MICROSOFT)
    return rewriter.quantizing(node, fused, result)
