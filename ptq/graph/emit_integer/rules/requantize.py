"""QuantizeLinear of what DequantizeLinear gave, with equal scales, does nothing."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import (
    EIGHT_BIT,
    SIXTEEN_BIT,
    quantizer_params,
)
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import Rewriter
from ptq.graph.passes.edit import bypass, is_op


@rule("QuantizeLinear")
def fuse_requantize(node: ir.Node, rewriter: Rewriter) -> bool:
    """Let the readers of QuantizeLinear read the codes that it gives back."""
    value = node.inputs[0]
    if value is None or not is_op(value.producer(), "DequantizeLinear"):
        return False
    x = rewriter.activation(value, (*EIGHT_BIT, *SIXTEEN_BIT))
    return quantizer_params(node).same(x.params) and bypass(node, x.codes)
