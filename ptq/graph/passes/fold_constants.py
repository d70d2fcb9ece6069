"""Compute at once what depends on constants only, within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import (
    Array,
    constant,
    int_attribute,
    is_constant,
    only_user,
    replace_by_constant,
)

#: Bytes that folding may add to any model, beyond what its weights take.
_GROWTH_BYTES = 16 << 20

#: Elements of the largest tensor that Expand, Tile and the like may make of small ones.
_LARGEST_GROWN = 1 << 14

#: Where the model keeps, in memory only, how many bytes may still be added to it.
_ALLOWANCE = "ptq.fold_constants.allowance"


class FoldConstants(Rewrite):
    """Replace operators whose inputs are all constants by their results.

    Operators are computed as onnx's reference implementation does it. The size of a result is
    known before it is computed, and a model may become as large as twice its weights and 16 MB,
    so that none can make the fold exhaust the memory; what does not fit stays in the graph.
    """

    subject: ClassVar[str] = "constant expressions"
    verb: ClassVar[str] = "folded"

    def apply(self, model: ir.Model) -> int:
        """Fold; expects nodes in topological order."""
        opset = model.opset_imports.get("", 1)
        # kept with the model, for another run must not begin with a new allowance
        left = int(model.meta.get(_ALLOWANCE, _weight_bytes(model) + _GROWTH_BYTES))
        count = 0
        for node in model.graph:
            inputs = _constant_inputs(node)
            if inputs is None or not _fits(node, inputs, left):
                continue
            results = _evaluate(node, inputs, opset)
            if results is not None:
                left += _freed(node) - sum(array.nbytes for array in results)
                replace_by_constant(node, results)
                count += 1
        model.meta[_ALLOWANCE] = left
        return count


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _fits(node: ir.Node, inputs: list[Array | None], left: int) -> bool:
    arrays = [array for array in inputs if array is not None]
    try:
        size = _SIZES[node.op_type](node, arrays)
    except (ValueError, LookupError, ArithmeticError):  # onnxruntime says better what is wrong
        return False
    grown = size > sum(array.size for array in arrays)
    # the widest element that any of these operators makes has 8 bytes
    return size * 8 <= left and not (grown and size > _LARGEST_GROWN)


def _constant_inputs(node: ir.Node) -> list[Array | None] | None:
    """Return the inputs of a foldable operator, or ``None`` where one is no numeric constant."""
    if node.domain != "" or node.op_type not in _SIZES:
        return None
    if not all(value is None or is_constant(value) for value in node.inputs):
        return None
    inputs = [constant(value) for value in node.inputs]
    numeric = all(array is None or array.dtype.kind in "fiub" for array in inputs)
    return inputs if numeric and any(array is not None for array in inputs) else None


def _freed(node: ir.Node) -> int:
    """Return the bytes of the constants that nobody else reads."""
    tensors = [v.const_value for v in node.inputs if v is not None and only_user(v) is node]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _evaluate(node: ir.Node, inputs: list[Array | None], opset: int) -> list[Array] | None:
    from onnx.reference.ops import load_op

    settings = {"log": _ignore, "opsets": {"": opset}, "verbose": 0, "new_ops": None}
    try:
        implementation = load_op("", node.op_type, opset)
        with np.errstate(all="ignore"):  # a log of zero gives here what it gives at run time
            results = implementation(ir.serde.serialize_node(node), settings).run(*inputs)
    except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError):
        return None
    arrays = [np.asarray(result) for result in results]
    right = all(
        array.dtype.kind in "fiub" and output.dtype in (None, ir.DataType.from_numpy(array.dtype))
        for output, array in zip(node.outputs, arrays, strict=True)
    )
    return arrays if right else None


def _ignore(*_: object) -> None:
    """Take the place of the reference implementation's log."""


Size = Callable[[ir.Node, Sequence[Array]], int]


def _first(_: ir.Node, inputs: Sequence[Array]) -> int:
    return inputs[0].size


def _sum(_: ir.Node, inputs: Sequence[Array]) -> int:
    return sum(array.size for array in inputs)


def _broadcast(_: ir.Node, inputs: Sequence[Array]) -> int:
    return math.prod(np.broadcast_shapes(*(array.shape for array in inputs)))


def _gather(node: ir.Node, inputs: Sequence[Array]) -> int:
    data, indices = inputs
    return int(data.size // data.shape[int_attribute(node, "axis", 0)] * indices.size)


def _of_shape(_: ir.Node, inputs: Sequence[Array]) -> int:
    return math.prod(_ints(inputs[0]))


def _expand(_: ir.Node, inputs: Sequence[Array]) -> int:
    return math.prod(np.broadcast_shapes(inputs[0].shape, tuple(_ints(inputs[1]))))


def _tile(_: ir.Node, inputs: Sequence[Array]) -> int:
    return inputs[0].size * math.prod(_ints(inputs[1]))


def _range(_: ir.Node, inputs: Sequence[Array]) -> int:
    start, limit, delta = (float(array.item()) for array in inputs)
    return max(math.ceil((limit - start) / delta), 0)


def _ints(array: Array) -> list[int]:
    # Python integers, for the product of a hostile shape does not fit in int64
    return [int(number) for number in array.reshape(-1)]


_SIZES: dict[str, Size] = {
    **dict.fromkeys(
        ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Neg", "Not", "Reciprocal", "Round"),
        _first,
    ),
    **dict.fromkeys(("Sign", "Sin", "Sqrt", "Cast", "Shape", "Size", "Slice", "Split"), _first),
    **dict.fromkeys(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), _first),
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin"), _first),
    **dict.fromkeys(("ReduceProd", "ReduceSum", "Transpose"), _first),
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mod", "Mul", "Pow", "Sub"), _broadcast),
    **dict.fromkeys(("And", "Equal", "Greater", "GreaterOrEqual"), _broadcast),
    **dict.fromkeys(("Less", "LessOrEqual", "Or", "Where"), _broadcast),
    "Concat": _sum,
    "ConstantOfShape": _of_shape,
    "Expand": _expand,
    "Gather": _gather,
    "Range": _range,
    "Tile": _tile,
}
