"""What only moves, copies or selects values runs on codes."""

from __future__ import annotations

import onnx_ir as ir

from ptq.graph.emit_integer.quantized import (
    EIGHT_BIT,
    SIXTEEN_BIT,
    Operand,
    Result,
    UnfitError,
    result,
)
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import Rewriter, kernel
from ptq.graph.passes.edit import is_constant, take_over, text_attribute

#: Copies; onnxruntime has the kernel for every type of codes.
_COPIES = frozenset(
    {"Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze"}
)

#: These have kernels for 8 bits. Codes are in the order of what they stand for: maxima are, too.
_EIGHT_BIT_ONLY = frozenset(
    {"DepthToSpace", "MaxPool", "ReduceMax", "ReduceMin", "Resize", "SpaceToDepth"}
)

#: Of these the output is no larger than the input: DequantizeLinear costs no more after them.
_SINKS = frozenset(
    {"DepthToSpace", "Flatten", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)


@rule(*sorted(_COPIES | _EIGHT_BIT_ONLY))
def fuse_move(node: ir.Node, rewriter: Rewriter) -> bool:
    """Move codes where all outputs are requantized as they were, or DequantizeLinear can follow."""
    _require_exact(node)
    types = (*EIGHT_BIT, *SIXTEEN_BIT) if node.op_type in _COPIES else EIGHT_BIT
    x = rewriter.activation(node.inputs[0], types)
    used = [v for v in node.outputs if v.uses() or v.is_graph_output()]
    results = [_same_result(value, x) for value in used]
    if None in results and not _sinks(node, x):
        raise UnfitError("no QuantizeLinear of the same scale is all that reads its output")
    fused = kernel(
        node.op_type,
        [x.codes, *node.inputs[1:]],
        node.attributes.values(),
        outputs=len(node.outputs),
    )
    rewriter.place(node, fused)
    moved = dict(zip(node.outputs, fused.outputs, strict=True))
    for value, found in zip(used, results, strict=True):
        if found is not None:
            rewriter.requantized(moved[value], found)
        else:
            _dequantize_after(value, moved[value], x, rewriter)
    for value in node.outputs:
        if value not in used:
            moved[value].name, value.name = value.name, None
    rewriter.graph.remove(node, safe=True)
    return True


def _require_exact(node: ir.Node) -> None:
    if node.op_type == "Resize":
        if text_attribute(node, "mode", "nearest") != "nearest":
            raise UnfitError("it interpolates")
        if text_attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
            raise UnfitError("it would take extrapolation_value for a code")
    if node.op_type == "MaxPool" and len(node.outputs) > 1:
        raise UnfitError("its indices are wanted")


def _same_result(value: ir.Value, x: Operand) -> Result | None:
    found = result(value)
    return found if found is not None and found.params.same(x.params) else None


def _sinks(node: ir.Node, x: Operand) -> bool:
    """Whether DequantizeLinear had better come after the node.

    A table that is constant is dequantized whole at every run, for the few rows that are taken.
    """
    if node.op_type == "Gather" and is_constant(x.codes):
        return True
    return node.op_type in _SINKS and not x.shared


def _dequantize_after(value: ir.Value, codes: ir.Value, x: Operand, rewriter: Rewriter) -> None:
    name = value.name or ""
    codes.name = rewriter.fresh(f"{name}/quantized")
    inputs = [codes, x.params.scale]
    if x.params.zero_point is not None:
        inputs.append(x.params.zero_point)
    after = ir.node("DequantizeLinear", inputs, name=rewriter.fresh(f"{name}/DQ"))
    node = value.producer()
    assert node is not None
    rewriter.graph.insert_before(node, after)
    take_over(value, after.outputs[0])
