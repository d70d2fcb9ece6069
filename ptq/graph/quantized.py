"""Read a model that is quantized already, to look at it: it is neither prepared nor changed."""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.types import Model

_CODES = frozenset(
    {ir.DataType.INT2, ir.DataType.UINT2, ir.DataType.INT4, ir.DataType.UINT4}
    | {ir.DataType.INT8, ir.DataType.UINT8}
)

#: Inputs of kernels that pack several codes of fewer bits into a byte, by operator: the codes, the
#: attribute with their width, and the width where it is left out.
_PACKED = {"MatMulNBits": (1, "bits", 4), "GatherBlockQuantized": (0, "bits", 4)}


def read_quantized(path: Path) -> Model:
    """Load a model as it is.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return ir.load(path)
    except Exception as error:  # protobuf's and onnx_ir's share no other base
        raise ModelError(f"'{path}' cannot be read: {error}") from error


def code_count(model: Model) -> int:
    """Return how many integers of 8 bits or fewer the initializers hold, zero points included."""
    total = 0
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in _CODES:
                total += prod(tensor.shape.numpy()) * _codes_in_a_number(value)
    return total


def _codes_in_a_number(value: ir.Value) -> int:
    for node, index in value.uses():
        position, name, default = _PACKED.get(node.op_type, (-1, "", 8))
        packed = value.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
        if index == position and packed:
            attribute = node.attributes.get(name)
            return 8 // (default if attribute is None else int(attribute.as_int()))
    return 1
