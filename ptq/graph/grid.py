"""What the QuantizeLinear and DequantizeLinear of a graph say about the codes between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, constant, input_at, int_attribute, is_op


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What a QuantizeLinear or DequantizeLinear says about its codes.

    Attributes:
        dtype: their type, as ONNX spells it.
        scale: per tensor, per channel or per block.
        zero_point: the same shape.
        axis: the channel axis, or ``None`` per tensor.
        block_size: how many neighbours share a scale; 0 if they are no blocks.
        codes: the codes, if they are constant.
    """

    dtype: str
    scale: Array
    zero_point: Array
    axis: int | None
    block_size: int
    codes: Array | None

    @classmethod
    def of(cls, node: ir.Node | None) -> Grid | None:
        """Return the grid, or ``None`` where it is not constant."""
        if node is None:
            return None
        scale, zero_point = constant(node.inputs[1]), constant(input_at(node, 2))
        if scale is None or zero_point is None:
            return None
        one = scale.ndim == 0
        return cls(
            # that of the tensor: numpy has no types of its own for 4 bits
            dtype=_dtype(node.inputs[2]),
            scale=scale,
            zero_point=zero_point.astype(np.int64),
            axis=None if one else int_attribute(node, "axis", 1),
            block_size=int_attribute(node, "block_size", 0),
            codes=constant(node.inputs[0]),
        )

    def same(self, other: Grid) -> bool:
        """Whether codes mean the same on both."""
        return (
            self.dtype == other.dtype
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


def dequantizer_of(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that computes a value."""
    node = None if value is None else value.producer()
    return node if is_op(node, "DequantizeLinear") else None


def quantizer_of(dequantizer: ir.Node) -> ir.Node | None:
    """Return the QuantizeLinear that wrote the codes, before a Clip of them."""
    value = dequantizer.inputs[0]
    node = None if value is None else value.producer()
    while is_op(node, "Clip") and node is not None and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if is_op(node, "QuantizeLinear") else None


def _dtype(value: ir.Value | None) -> str:
    dtype = value.const_value.dtype if value is not None and value.const_value is not None else None
    return "?" if dtype is None else dtype.name.lower()
