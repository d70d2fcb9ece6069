"""What the rules for products of matrices share: the factors, and the bias that is added."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.emit_integer.quantized import Operand, Params, UnfitError, operand
from ptq.graph.emit_integer.rewriter import Rewriter
from ptq.graph.passes.edit import constant, is_op, only_user


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """A vector that is added to a product.

    Attributes:
        node: the Add or Sum.
        vector: one value per column.
    """

    node: ir.Node
    vector: ir.Value


def weight(value: ir.Value | None, x: Params, axes: tuple[int, ...]) -> Operand:
    """Return the second factor, with one scale or one per output channel.

    Args:
        value: what the operator reads.
        x: of the first factor.
        axes: how the axis of the output channels may be written.

    Raises:
        UnfitError: it is in float, or of a type or granularity that the kernels do not take.
    """
    found = operand(value)
    signed, unsigned = ir.DataType.INT8, ir.DataType.UINT8
    if (x.dtype, found.params.dtype) not in (
        (unsigned, signed),
        (unsigned, unsigned),
        (signed, signed),
    ):
        types = f"{x.dtype.name} and {found.params.dtype.name}".lower()
        raise UnfitError(f"no kernel multiplies codes of types {types}")
    if found.params.axis is not None and found.params.axis not in axes:
        raise UnfitError("its weight has a scale for each of something else than output channels")
    return found


def factors(node: ir.Node, rewriter: Rewriter) -> tuple[Operand, Operand]:
    """Return the operands of a MatMul.

    Raises:
        UnfitError: the kernels do not take them.
    """
    a = rewriter.activation(node.inputs[0])
    b = weight(node.inputs[1], a.params, (-1, 1))
    if b.params.axis is not None and columns(b.codes) is None:
        raise UnfitError("a batch of matrices must have one scale")
    return a, b


def columns(codes: ir.Value | None) -> int | None:
    """Return the columns of a constant matrix, or ``None``; a Cast stores it in fewer bits."""
    cast = None if codes is None else codes.producer()
    if is_op(cast, "Cast"):
        assert cast is not None
        codes = cast.inputs[0]
    if codes is None or codes.const_value is None or len(codes.const_value.shape) != 2:
        return None
    return int(codes.const_value.shape.numpy()[1])


def int32_bias(value: ir.Value | None, x: Params, w: Params) -> ir.Value | None:
    """Return the codes of a bias, which the kernel adds to its sums of products.

    Raises:
        UnfitError: it is in float, or its codes count something else than those products.
    """
    if value is None:
        return None
    found = operand(value)
    if found.params.dtype != ir.DataType.INT32 or found.params.zeros.any():
        raise UnfitError("its bias is not int32 with zero point 0")
    steps, scales = x.scales.reshape(()) * w.scales.reshape(-1), found.params.scales.reshape(-1)
    alike = scales.size == steps.size or 1 in (scales.size, steps.size)
    if not alike or not np.allclose(scales, steps, rtol=1e-6, atol=0.0):
        raise UnfitError("the scale of its bias is not that of input times weight")
    return found.codes


def added_bias(product: ir.Value, width: int | None, rewriter: Rewriter) -> Bias | None:
    """Return the constant over the columns that is added to a product at once, if there is one.

    Args:
        product: what is read by nobody but the Add.
        width: how many columns it has, ``None`` where that is not known.
        rewriter: where the vector goes if the constant has more axes.
    """
    reader = only_user(product)
    node = product.producer()
    if reader is None or node is None or reader.graph is not node.graph or width is None:
        return None
    if not is_op(reader, "Add", "Sum") or len(reader.inputs) != 2:
        return None
    other = reader.inputs[1 if reader.inputs[0] is product else 0]
    array = constant(other)
    if other is None or array is None or array.dtype != np.float32:
        return None
    if array.size != width or array.shape[-1:] != (width,):
        return None
    if array.ndim == 1:
        return Bias(reader, other)
    if array.ndim > rewriter.rank(product):
        return None  # it adds axes, which no kernel does
    return Bias(reader, rewriter.constant(f"{other.name}/vector", array.reshape(width)))
