"""Relu and Clip between equal scales clip the codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ptq.graph.emit_integer.quantized import UnfitError, clip_bounds
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import Rewriter, kernel


@rule("Relu", "Clip")
def fuse_clip(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a clip that no operator before it absorbs; rounding is monotone, so that it is exact."""
    bounds = clip_bounds(node)
    x = rewriter.activation(node.inputs[0])
    if bounds is None:
        raise UnfitError("its bounds are computed at run time")
    result = rewriter.required_output(node, x.params.dtype)
    if not result.params.same(x.params):
        raise UnfitError("no QuantizeLinear of the same scale is all that reads its output")
    lo, hi = (float(np.clip(end, result.lo, result.hi)) for end in bounds)
    ends = [x.params.code_of(end) for end in (lo, hi)]
    name = result.quantize.outputs[0].name
    codes = [
        rewriter.constant(f"{name}/clip_{end}", code)
        for end, code in zip(("lo", "hi"), ends, strict=True)
    ]
    unclipped = replace(result, lo=-np.inf, hi=np.inf)
    return rewriter.quantizing(node, kernel("Clip", [x.codes, *codes]), unclipped)
