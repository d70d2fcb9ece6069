"""Compute the codes of weights that a file has in few bits, as a runtime does at load."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, constant, int_attribute, replace_by_constant
from ptq.graph.types import Model

#: Entries of the largest table that is looked up, 256 rows of 8: a file may not fill the memory.
_LARGEST_TABLE = 2048

_Compute: TypeAlias = Callable[[ir.Node, list[Array]], list[Array] | None]


def widened(model: Model) -> Model:
    """Return a model in which codes that `ptq.graph.store_narrow` packed are int8 constants again.

    They have the names that they had before. What other operators compute of constants stays.

    Args:
        model: a quantized one as it was read; it is not changed.
    """
    model = model.clone()
    for graph in list(model.graphs()):
        for node in list(graph):
            results = _computed(node)
            if results is not None:
                inputs, names = set(node.inputs), [value.name for value in node.outputs]
                replace_by_constant(node, results)
                made = (graph.initializers[name] for name in names if name)
                _drop_unread({*inputs, *made})
    return model


def _drop_unread(values: Iterable[ir.Value | None]) -> None:
    for value in values:
        if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        assert value.graph is not None and value.name is not None
        del value.graph.initializers[value.name]


def _computed(node: ir.Node) -> list[Array] | None:
    """Return what a node makes of constants, or ``None`` where it is none that unpacks codes."""
    compute = _OPERATORS.get(node.op_type) if node.domain == "" else None
    arrays = [array for value in node.inputs if (array := constant(value)) is not None]
    if compute is None or len(arrays) != len(node.inputs):
        return None
    try:
        return compute(node, arrays)
    except (ValueError, LookupError):  # onnxruntime says better what is wrong
        return None


def _cast(node: ir.Node, inputs: list[Array]) -> list[Array] | None:
    to = _INTEGERS.get(int_attribute(node, "to", 0))
    return None if to is None else [inputs[0].astype(to)]


def _looked_up(node: ir.Node, inputs: list[Array]) -> list[Array] | None:
    table, index = inputs
    return [np.take(table, index, axis=0)] if table.size <= _LARGEST_TABLE else None


def _looked_up_each(node: ir.Node, inputs: list[Array]) -> list[Array] | None:
    tables, index = inputs
    return [np.take_along_axis(tables, index, axis=int_attribute(node, "axis", 0))]


def _joined(node: ir.Node, inputs: list[Array]) -> list[Array] | None:
    return [np.bitwise_or(*inputs)]


def _split(node: ir.Node, inputs: list[Array]) -> list[Array] | None:
    codes, sizes = inputs
    parts = np.split(codes, np.cumsum(sizes)[:-1])
    return list(parts) if len(parts) == len(node.outputs) else None


def _reshaped(node: ir.Node, inputs: list[Array]) -> list[Array] | None:
    return [inputs[0].reshape(inputs[1])]


#: The types that codes and their indices have; what becomes float is no codes.
_INTEGERS = {int(t): t.numpy() for t in (ir.DataType.INT8, ir.DataType.INT32)}

#: The operators that `ptq.graph.packed_codes` writes.
_OPERATORS: dict[str, _Compute] = {
    "Cast": _cast,
    "Gather": _looked_up,
    "GatherElements": _looked_up_each,
    "BitwiseOr": _joined,
    "Split": _split,
    "Reshape": _reshaped,
}
