"""What batchnorms tell of the values of channels, followed through the graph.

A batchnorm puts out channels of mean beta and deviation gamma, on the data that it was trained
with, which are taken as normal; and what an operator makes of each value by itself is then known,
too. Reference: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2.1; departs from it by going on past the first activation
function, through others than Relu, and through residual sums as if what they add were independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from ptq.graph.passes.edit import (
    constant,
    float_attribute,
    input_at,
    int_attribute,
    is_op,
    text_attribute,
)
from ptq.graph.passes.fold_batchnorm import EPSILON
from ptq.graph.site import clip_range, gate_of, is_standard
from ptq.numerics.arrays import F64
from ptq.numerics.marginal import Marginal, Normal

_Function = Callable[[F64], F64]


def normals_of(model: ir.Model) -> dict[str, Normal]:
    """Return what the batchnorms of a model, before it is prepared, put out, by name of the tensor.

    Its mean is beta, and its deviation ``|gamma| sqrt(var / (var + epsilon))``.
    """
    found: dict[str, Normal] = {}
    for node in model.graph:
        if not is_op(node, "BatchNormalization") or int_attribute(node, "training_mode", 0):
            continue
        tensors = [get_const_tensor(v) for v in node.inputs[1:5] if v is not None]
        arrays = [t.numpy().astype(np.float64) for t in tensors if t is not None]
        if len(arrays) < 4 or len({a.shape for a in arrays}) > 1 or arrays[0].ndim != 1:
            continue
        gamma, beta, _, var = arrays
        with np.errstate(all="ignore"):
            share = var / (var + float_attribute(node, "epsilon", EPSILON))
            std = np.abs(gamma) * np.sqrt(share)
        if np.isfinite(beta).all() and np.isfinite(std).all():
            found[node.outputs[0].name or ""] = Normal(beta, std)
    return found


def marginals(model: ir.Model, normals: Mapping[str, Normal]) -> Iterator[tuple[str, Marginal]]:
    """Yield every tensor of a prepared model of which the distribution is known, in graph order.

    Args:
        model: the model; channels are axis 1 of its tensors.
        normals: tensors of which it is known beforehand.
    """
    known: dict[ir.Value, Marginal] = {}
    last = {v: node for node in model.graph for v in node.inputs if v is not None}
    for node in model.graph:
        output = node.outputs[0]
        given = normals.get(output.name or "")
        found = _through(node, known) if given is None else Marginal.of(given)
        if found is not None:
            known[output] = found
        for value in [v for v in node.inputs if v is not None and last[v] is node]:
            known.pop(value, None)  # of thousands of channels, points are many megabytes
        if found is not None:
            yield output.name or "", found


#: What is linear in its input, in front of the first batchnorm.
_LINEAR = frozenset(
    {"Conv", "Identity", "Pad", "Add", "Sub", "Mul", "Div", "Transpose", "Reshape", "AveragePool"}
)


def first_known(model: ir.Model, normals: Mapping[str, Normal]) -> list[str]:
    """Return the tensors known beforehand that are linear in the input of the model."""
    linear = {v for v in model.graph.inputs if not v.is_initializer()}
    found = []
    for node in model.graph:
        data = [v for v in node.inputs if v is not None and constant(v) is None]
        if len(data) != 1 or data[0] not in linear or not is_op(node, *_LINEAR):
            continue
        if node.outputs[0].name in normals:
            found.append(node.outputs[0].name or "")
        else:
            linear.add(node.outputs[0])
    return found


def _through(node: ir.Node, known: Mapping[ir.Value, Marginal]) -> Marginal | None:
    """Return what a node makes of channels that are known, or ``None``."""
    data = [known[v] for v in node.inputs if v is not None and v in known]
    if not data or not is_standard(node):
        return None
    if node.op_type in ("Relu", "Clip"):
        return data[0].clipped(*clip_range(node)) if _bounded(node) else None
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        return _combined(node, data)
    if node.op_type == "Concat":
        whole = int_attribute(node, "axis", 0) == 1 and len(data) == len(node.inputs)
        return Marginal.joined(data) if whole else None
    if node.op_type == "GlobalAveragePool":
        return data[0].pooled()
    if node.op_type == "Resize":
        return data[0] if text_attribute(node, "mode", "nearest") == "nearest" else None
    function = _pointwise(node)
    return data[0].map(function) if function is not None else None


def _bounded(node: ir.Node) -> bool:
    """Whether the bounds of a Clip are constants."""
    return all(v is None or constant(v) is not None for v in node.inputs[1:])


def _pointwise(node: ir.Node) -> _Function | None:
    """Return what an operator of one input makes of a value."""
    from scipy.special import expit

    gate = gate_of(node)
    if gate is not None:
        alpha, beta = gate.alpha, gate.beta
        times_x = node.op_type == "HardSwish"

        def gated(x: F64) -> F64:
            opened: F64 = np.clip(alpha * x + beta, 0.0, 1.0)
            return opened * x if times_x else opened

        return gated
    if node.op_type == "LeakyRelu":
        slope = float_attribute(node, "alpha", 0.01)
        return lambda x: np.where(x < 0, slope * x, x)
    functions: dict[str, _Function] = {
        "Identity": lambda x: x,
        "Neg": np.negative,
        "Abs": np.abs,
        "Tanh": np.tanh,
        "Sigmoid": expit,
    }
    return functions.get(node.op_type)


def _combined(node: ir.Node, data: list[Marginal]) -> Marginal | None:
    """Return a sum of known tensors, or what a constant makes of one."""
    if len(data) == 2:
        alike = node.op_type == "Add" and data[0].mean.shape == data[1].mean.shape
        return data[0].plus(data[1]) if alike and node.inputs[0] is not node.inputs[1] else None
    place = 0 if constant(node.inputs[0]) is not None else 1
    array = constant(input_at(node, place))
    column = None if array is None else _column(array, data[0].mean.size)
    if column is None:
        return None
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    apply: Callable[[F64, F64], F64] = function[node.op_type]
    with np.errstate(all="ignore"):
        found = data[0].map(lambda x: apply(column, x) if place == 0 else apply(x, column))
    return found if np.isfinite(found.ends).all() else None


def _column(array: np.ndarray, channels: int) -> F64 | None:
    """Return a constant as one number for each channel, ``(channels or 1, 1)``, if it is that."""
    if array.size == 1:
        return array.astype(np.float64).reshape(1, 1)
    shape = array.shape[1:] if array.ndim == 4 and array.shape[0] == 1 else array.shape
    alike = shape[0] == channels == array.size
    return array.astype(np.float64).reshape(-1, 1) if len(shape) == 3 and alike else None
