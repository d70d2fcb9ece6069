"""Fold batch normalization into the linear operator before or after it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import (
    Initializers,
    absorb,
    bypass,
    constant,
    float_attribute,
    input_at,
    int_attribute,
    is_op,
    only_user,
    rank,
    take_over,
)
from ptq.graph.passes.linear import Affine, data_rank, fold_before, fold_behind

#: The default of ``epsilon`` (ONNX BatchNormalization-15).
EPSILON = 1e-5


class FoldBatchNorm(Rewrite):
    """Fold every batchnorm that follows or precedes a linear operator with constant weights.

    In front of a convolution it folds only where padding cannot tell the difference: padded
    pixels are zero after the batchnorm, not ``shift``. Behind a MatMul its shift becomes an Add.
    """

    subject: ClassVar[str] = "batchnorm"
    verb: ClassVar[str] = "folded"

    def apply(self, model: ir.Model) -> int:
        """Fold, and return how many are gone."""
        constants = Initializers(model)
        nodes = [node for node in model.graph if is_op(node, "BatchNormalization")]
        return sum(_fold(node, constants) for node in nodes)


def _fold(node: ir.Node, constants: Initializers) -> bool:
    value = node.inputs[0]
    if value is None or not _is_inference(node):
        return False
    neighbours = value.producer(), only_user(node.outputs[0])
    dims = next(filter(None, [*map(data_rank, neighbours), rank(value)]), None)
    affine = affine_of(node, dims) if dims is not None and dims >= 2 else None
    if affine is None:
        return False
    if fold_behind(value, affine, constants):
        return absorb(node, value)
    if _as_add(node, value, affine, constants):
        return True
    return fold_before(node.outputs[0], affine, constants) and bypass(node, value)


def affine_of(node: ir.Node, dims: int) -> Affine | None:
    """Return the affine map of a batchnorm over tensors of that rank.

    ``scale = gamma / sqrt(var + epsilon)`` and ``shift = beta - mean * scale``, in float64; the
    channel axis is 1.
    """
    gamma, beta, mean, var = (constant(input_at(node, index)) for index in range(1, 5))
    if gamma is None or beta is None or mean is None or var is None:
        return None
    if gamma.ndim != 1 or not gamma.shape == beta.shape == mean.shape == var.shape:
        return None
    epsilon = float_attribute(node, "epsilon", EPSILON)
    # a negative variance gives NaN here as it does in the batchnorm
    with np.errstate(all="ignore"):
        scale = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + epsilon)
        shift = beta - mean * scale
    return Affine(scale, shift, 1 - dims)


def _is_inference(node: ir.Node) -> bool:
    unused = all(not v.uses() and not v.is_graph_output() for v in node.outputs[1:])
    return unused and int_attribute(node, "training_mode", 0) == 0


def _as_add(node: ir.Node, value: ir.Value, affine: Affine, constants: Initializers) -> bool:
    """Turn MatMul and batchnorm into MatMul and Add, where the channels are the last axis."""
    producer = value.producer()
    weight = constant(input_at(producer, 1)) if producer and is_op(producer, "MatMul") else None
    if weight is None or affine.axis != -1:
        return False
    scale_only = Affine(affine.scale, np.zeros(1), affine.axis)
    if not fold_behind(value, scale_only, constants):
        return False
    shift = constants.add(f"{node.name}.shift", affine.shift.astype(weight.dtype))
    add = ir.node("Add", [value, shift], name=node.name)
    assert node.graph is not None
    node.graph.insert_after(node, add)
    take_over(node.outputs[0], add.outputs[0])
    node.graph.remove(node, safe=True)
    return True
