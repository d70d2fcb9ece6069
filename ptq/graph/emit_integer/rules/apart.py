"""A Sum of one operand after a fused product goes: what it kept apart is fused already."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter
from ptq.graph.passes.edit import bypass

_PRODUCTS = frozenset({"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"})


@rule("Sum")
def remove_apart(node: ir.Node, rewriter: Rewriter) -> bool:
    """Remove what kept onnxruntime from merging a product with what reads it."""
    value = node.inputs[0]
    maker = None if value is None else value.producer()
    if len(node.inputs) != 1 or value is None or maker is None or maker.domain != MICROSOFT:
        return False
    return maker.op_type in _PRODUCTS and bypass(node, value)
