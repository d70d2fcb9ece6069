"""The factors and shifts of layer norms: where they are, and changing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, Initializers, constant, input_at, is_op, only_user
from ptq.numerics.arrays import F64


@dataclass(frozen=True, slots=True, eq=False)
class NormTweak:
    """By what the output of a norm is multiplied, and what is then added, channel by channel."""

    factor: F64
    shift: F64


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A layer norm with constant factor and shift, one operator or written out.

    Attributes:
        factor: the node that multiplies, and the index of the constant.
        shift: the node that adds, of which the output is the norm's, and the index.
    """

    factor: tuple[ir.Node, int]
    shift: tuple[ir.Node, int]

    @property
    def name(self) -> str:
        """The name of the node that puts it out."""
        return self.shift[0].name or ""


def find_norms(model: ir.Model) -> list[Norm]:
    """Return the layer norms of the main graph, in its order."""
    return [norm for node in model.graph if (norm := _norm(node)) is not None]


def output_of(model: ir.Model, norm: str) -> str | None:
    """Return what the norm of this name puts out in a model, or ``None`` if it is not there."""
    for node in model.graph:
        if node.name == norm:
            return node.outputs[0].name
    return None


def tweak_norms(model: ir.Model, tweaks: Mapping[str, NormTweak]) -> None:
    """Change the factors and shifts of norms of a float model, in place.

    Args:
        model: the float model.
        tweaks: by the name of the norm.
    """
    if not tweaks:
        return
    constants = Initializers(model)
    for norm in find_norms(model):
        tweak = tweaks.get(norm.name)
        if tweak is None:
            continue
        for (node, index), shift, what in (
            (norm.factor, None, "factor"),
            (norm.shift, tweak.shift, "shift"),
        ):
            old = constant(node.inputs[index])
            assert old is not None
            new = old.astype(np.float64) * tweak.factor + (0.0 if shift is None else shift)
            name = f"{norm.name}/tweaked_{what}"
            constants.assign(node, index, new.astype(old.dtype), name)


def _norm(node: ir.Node) -> Norm | None:
    if is_op(node, "LayerNormalization"):
        vectors = [_vector(input_at(node, index)) for index in (1, 2)]
        if vectors[0] is None or vectors[1] is None:
            return None
        return Norm((node, 1), (node, 2)) if vectors[0].shape == vectors[1].shape else None
    if not is_op(node, "Mul"):
        return None
    after = only_user(node.outputs[0])
    factor, shift = _operand(node), _operand(after) if is_op(after, "Add") else None
    if factor is None or shift is None or after is None:
        return None
    scaled = node.inputs[1 - factor]
    divided = None if scaled is None else scaled.producer()
    if not is_op(divided, "Div", "Mul") or not _of_variance(divided):
        return None
    vectors = [_vector(node.inputs[factor]), _vector(after.inputs[shift])]
    sizes = {vector.size for vector in vectors if vector is not None}
    return Norm((node, factor), (after, shift)) if len(sizes) == 1 else None


def _of_variance(node: ir.Node | None) -> bool:
    """Whether a node divides by a standard deviation, or multiplies by the reciprocal of one."""
    for value in () if node is None else node.inputs:
        before = None if value is None else value.producer()
        if is_op(before, "Reciprocal", "Div") and before is not None:
            before = before.inputs[-1].producer() if before.inputs[-1] is not None else None
        if is_op(before, "Sqrt", "Pow"):
            return True
    return False


def _operand(node: ir.Node | None) -> int | None:
    """Return which input is a vector, if one is."""
    for index in range(0 if node is None else 2):
        assert node is not None
        if _vector(node.inputs[index]) is not None:
            return index
    return None


def _vector(value: ir.Value | None) -> Array | None:
    array = constant(value)
    fits = array is not None and array.ndim == 1 and array.size > 1 and array.dtype == np.float32
    return array if fits else None
