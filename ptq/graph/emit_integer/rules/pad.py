"""Pad runs on codes, with the code of its value."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import Rewriter, kernel
from ptq.graph.passes.edit import constant, input_at, text_attribute


@rule("Pad")
def fuse_pad(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse padding, constant or by what is there, that is requantized with the same scale."""
    x = rewriter.activation(node.inputs[0])
    result = rewriter.required_output(node, x.params.dtype)
    if not result.params.same(x.params):
        raise UnfitError("no QuantizeLinear of the same scale is all that reads its output")
    padding: ir.Value | None = None
    if text_attribute(node, "mode", "constant") == "constant":
        real = constant(input_at(node, 2))
        if input_at(node, 2) is not None and real is None:
            raise UnfitError("its value is computed at run time")
        code = x.params.code_of(0.0 if real is None else float(real.item()))
        padding = rewriter.constant(f"{node.outputs[0].name}/padding", code)
    inputs = [x.codes, node.inputs[1], padding]
    if (axes := input_at(node, 3)) is not None:
        inputs.append(axes)
    return rewriter.quantizing(node, kernel("Pad", inputs, node.attributes.values()), result)
