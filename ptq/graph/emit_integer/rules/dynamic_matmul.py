"""DynamicQuantizeLinear, MatMulInteger, Cast and Mul become one dynamic product."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.emit_integer.matrices import added_bias, columns
from ptq.graph.emit_integer.quantized import UnfitError
from ptq.graph.emit_integer.registry import rule
from ptq.graph.emit_integer.rewriter import MICROSOFT, Rewriter, kernel
from ptq.graph.passes.edit import constant, input_at, int_attribute, is_op, only_user


@dataclass(frozen=True, slots=True, eq=False)
class _Scaling:
    """What makes floats of the int32 sums.

    Attributes:
        cast: to float32.
        scales: the Mul of both scales.
        multiply: the Mul by their product.
        weight_scale: a scalar or one per column.
    """

    cast: ir.Node
    scales: ir.Node
    multiply: ir.Node
    weight_scale: ir.Value


@rule("MatMulInteger")
def fuse_dynamic_matmul(node: ir.Node, rewriter: Rewriter) -> bool:
    """Fuse a product of dynamically quantized activations, and the bias added to it.

    Where several products share a DynamicQuantizeLinear it stays, for each to read.
    """
    a, b = node.inputs[:2]
    quantize = None if a is None else a.producer()
    if quantize is None or not is_op(quantize, "DynamicQuantizeLinear"):
        raise UnfitError("its input is not quantized dynamically")
    codes, a_scale, a_zero_point = quantize.outputs
    if a is not codes or input_at(node, 2) is not a_zero_point:
        raise UnfitError("its zero point is not that of its input")
    scaling = _scaling(node, a_scale)
    scale = constant(scaling.weight_scale)
    b_zero_point = input_at(node, 3)
    zero_point = constant(b_zero_point)
    if scale is None or (b_zero_point is not None and zero_point is None):
        raise UnfitError("the scale or zero point of its weight is computed at run time")
    shapes = {scale.shape, () if zero_point is None else zero_point.shape} - {(), (1,)}
    if shapes - {(columns(b),)}:
        raise UnfitError("its weight has neither one scale nor one per column")
    nodes = [node, scaling.cast, scaling.multiply]
    bias = added_bias(scaling.multiply.outputs[0], columns(b), rewriter)
    readers = {use.node for value in quantize.outputs for use in value.uses()}
    wanted = any(value.is_graph_output() for value in quantize.outputs)
    if readers == {node, scaling.scales} and not wanted:
        op_type = "DynamicQuantizeMatMul"
        inputs = [quantize.inputs[0], b, scaling.weight_scale, b_zero_point]
    else:
        op_type = "MatMulIntegerToFloat"
        inputs = [codes, b, a_scale, scaling.weight_scale, a_zero_point, b_zero_point]
    if bias is not None:
        inputs.append(bias.vector)
        nodes.append(bias.node)
    name = (node.name or "").removesuffix(f"/{node.op_type}")
    fused = kernel(op_type, inputs, domain=MICROSOFT)
    rewriter.replacing(nodes, fused)
    fused.name = name  # of the float operator, as ptq.graph.emit_dynamic extends it
    return True


def _scaling(node: ir.Node, a_scale: ir.Value) -> _Scaling:
    """Return what follows a MatMulInteger, as onnxruntime's own quantizer writes it.

    Raises:
        UnfitError: something else follows.
    """
    cast = only_user(node.outputs[0])
    if cast is None or not is_op(cast, "Cast") or int_attribute(cast, "to", 0) != 1:
        raise UnfitError("its sums are not cast to float32 alone")
    multiply = only_user(cast.outputs[0])
    if multiply is None or not is_op(multiply, "Mul") or multiply.graph is not node.graph:
        raise UnfitError("its sums are not scaled by one Mul")
    scales = _other(multiply, cast.outputs[0]).producer()
    if scales is None or not is_op(scales, "Mul") or a_scale not in scales.inputs:
        raise UnfitError("its sums are not multiplied by the product of both scales")
    return _Scaling(cast, scales, multiply, _other(scales, a_scale))


def _other(node: ir.Node, value: ir.Value) -> ir.Value:
    """Return the operand of a binary operator beside ``value``."""
    first, second = node.inputs
    other = second if first is value else first
    assert other is not None
    return other
