"""Describe a graph in plain values, for people and for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import msgspec
import onnx_ir as ir


class Value(msgspec.Struct, frozen=True):
    """An input or an output: a dimension is a number, a name, or ``?``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


def describe_values(values: Iterable[ir.Value]) -> tuple[Value, ...]:
    """Return names, types and shapes."""
    return tuple(_describe(v) for v in values)


def _describe(value: ir.Value) -> Value:
    dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    if value.shape is None:
        return Value(value.name or "", dtype, None)
    dims = tuple(d if isinstance(d, int) else (d.value or "?") for d in value.shape)
    return Value(value.name or "", dtype, dims)


def opset_of(model: ir.Model) -> int:
    """Return the version of the default operator set, 0 if the model has none."""
    imports = model.opset_imports
    return imports.get("", imports.get("ai.onnx", 0))


def parameters(model: ir.Model) -> int:
    """Return how many floating-point numbers the initializers of the main graph hold."""
    tensors = (v.const_value for v in model.graph.initializers.values())
    return sum(
        prod(t.shape.numpy()) for t in tensors if t is not None and t.dtype.is_floating_point()
    )
