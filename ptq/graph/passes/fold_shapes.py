"""Compute shape arithmetic whose result is known although some dimension is not.

``Shape`` of ``(N, 3, 224, 224)`` is no constant, but element 2 of it is. Exporters put such chains
(Shape, Gather, Unsqueeze, Concat, ...) before every Reshape, Pad and Resize.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import (
    constant,
    input_at,
    int_attribute,
    replace_by_constant,
)

#: Longest tensor followed; shapes have a few elements.
_LONGEST = 64

#: An int64 tensor of dimensions 0 or 1 as objects: ``int`` where known, ``None`` where not.
Known = npt.NDArray[np.object_]


class FoldShapes(Rewrite):
    """Replace shape arithmetic by constants where every element of the result is known."""

    subject: ClassVar[str] = "shape arithmetic"
    verb: ClassVar[str] = "nodes folded"

    def apply(self, model: ir.Model) -> int:
        """Fold; expects nodes in topological order."""
        known: dict[ir.Value, Known] = {}
        count = 0
        for node in model.graph:
            follow = _FOLLOW.get(node.op_type) if node.domain == "" else None
            if follow is None:
                continue
            result = follow(node, known)
            if result is None or result.size > _LONGEST:
                continue
            known[node.outputs[0]] = result
            if all(n is not None for n in result.flat):
                replace_by_constant(node, [result.astype(np.int64)])
                count += 1
        return count


Follow = Callable[[ir.Node, dict[ir.Value, Known]], "Known | None"]


def _input(node: ir.Node, index: int, known: dict[ir.Value, Known]) -> Known | None:
    value = input_at(node, index)
    array = constant(value)
    if array is not None and array.dtype == np.int64 and array.size <= _LONGEST:
        return array.astype(object)
    return known.get(value) if value is not None else None


def _shape(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    value = node.inputs[0]
    # the shape of an output is what the file declares, which may be stale (see `InferShapes`)
    if value is None or value.shape is None or value.is_graph_output():
        return None
    dims = [d if isinstance(d, int) and d >= 0 else None for d in value.shape]
    start = int_attribute(node, "start", 0)
    end = int_attribute(node, "end", len(dims))
    return np.array(dims[start:end], dtype=object)


def _gather(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    data, indices = _input(node, 0, known), constant(input_at(node, 1))
    if data is None or indices is None or data.ndim != 1 or int_attribute(node, "axis", 0):
        return None
    if indices.ndim > 1 or indices.dtype.kind != "i" or (np.abs(indices + 0.5) > data.size).any():
        return None
    return np.asarray(data[indices], dtype=object)


def _slice(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    data = _input(node, 0, known)
    if data is None or data.ndim != 1:
        return None
    numbers = [constant(input_at(node, index)) for index in (1, 2)]
    if input_at(node, 4) is not None:
        numbers.append(constant(input_at(node, 4)))
    if any(array is None or array.size != 1 for array in numbers):
        return None
    start, end, *step = (int(array.item()) for array in numbers if array is not None)
    # with a negative step ONNX clamps an end below -size to before the first element
    return data[start : end : step[0] if step else 1] if not step or step[0] > 0 else None


def _concat(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    parts = [_input(node, index, known) for index in range(len(node.inputs))]
    if any(part is None or part.ndim != 1 for part in parts):
        return None
    return np.concatenate([part for part in parts if part is not None])


def _reshaped(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    """Unsqueeze and Squeeze between one number and a vector of one."""
    data, axes = _input(node, 0, known), constant(input_at(node, 1))
    if data is None or data.size != 1:
        return None
    if axes is not None and axes.size != 1:
        return None
    to_vector = node.op_type == "Unsqueeze"
    if to_vector and data.ndim:
        return None
    return data.reshape((1,) if to_vector else ())


def _cast(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    data = _input(node, 0, known)
    return data if int_attribute(node, "to", 0) == ir.DataType.INT64 else None


def _elementwise(node: ir.Node, known: dict[ir.Value, Known]) -> Known | None:
    left, right = _input(node, 0, known), _input(node, 1, known)
    if left is None or right is None:
        return None
    if left.size != right.size and 1 not in (left.size, right.size):
        return None
    compute = _ARITHMETIC[node.op_type]
    pairs = np.broadcast(left, right)
    results = [None if a is None or b is None else compute(a, b) for a, b in pairs]
    return np.array(results, dtype=object).reshape(pairs.shape)


def _divide(a: int, b: int) -> int | None:
    """Divide as ONNX does, towards zero; by zero it is unknown."""
    return None if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_ARITHMETIC: dict[str, Callable[[int, int], int | None]] = {
    "Add": int.__add__,
    "Sub": int.__sub__,
    "Mul": int.__mul__,
    "Div": _divide,
}

_FOLLOW: dict[str, Follow] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _reshaped,
    "Squeeze": _reshaped,
    "Cast": _cast,
    **dict.fromkeys(_ARITHMETIC, _elementwise),
}
