"""Divide what dense layers read by a factor for each channel, in the producer or by a Mul.

Reference: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", ICML 2023, section 4: ``Y = (X diag(s)^-1) (diag(s) W)``. Where others than dense
layers read the tensor, as a residual stream does behind a norm, a Mul in front of the layers
divides it, which they share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Initializers, constant, input_at, ints_attribute, is_op, only_user
from ptq.graph.rescale.apply import fitting
from ptq.graph.rescale.linear import Float64, Linear, linear_of

#: Attention from where its heads are put together back to what they were taken of, and the input.
_ATTENTION = (("Reshape", 0), ("Transpose", 0), ("MatMul", 1), ("Transpose", 0), ("Reshape", 0))


@dataclass(frozen=True, slots=True, eq=False)
class Smoothable:
    """A tensor that dense layers read, which can be divided channel by channel.

    Attributes:
        value: the tensor; its channels are the last axis.
        readers: the layers that take it as data.
        vectors: constants of what makes it, with the index of the input, that divide it when they
            are divided; empty if a Mul must.
        maker: the dense layer of which the weight is divided too, if it comes of one.
    """

    value: ir.Value
    readers: tuple[Linear, ...]
    vectors: tuple[tuple[ir.Node, int], ...] = ()
    maker: Linear | None = None

    @property
    def name(self) -> str:
        """The name of the tensor."""
        return self.value.name or ""

    @property
    def channels(self) -> int:
        """How many channels the tensor has."""
        return self.readers[0].inputs

    @property
    def folds(self) -> bool:
        """Whether no Mul is needed."""
        return bool(self.vectors) or self.maker is not None


def find_smoothable(model: ir.Model) -> list[Smoothable]:
    """Return the inner tensors of the main graph that dense layers read, in its order."""
    return [found for node in model.graph for v in node.outputs if (found := _smoothable(v))]


def _smoothable(value: ir.Value) -> Smoothable | None:
    linears = [(linear_of(n), i) for n, i in value.uses() if n.graph is value.graph]
    readers = tuple(e for e, index in linears if e is not None and e.axis == -1 and index == 0)
    if not readers or len({reader.inputs for reader in readers}) > 1:
        return None
    found = Smoothable(value, readers)
    if len(readers) < len(value.uses()) or value.is_graph_output():
        return found
    vectors: list[tuple[ir.Node, int]] = []
    maker = _folded(value, found.channels, vectors)
    if maker is None:
        return found
    return Smoothable(value, readers, tuple(vectors), maker if isinstance(maker, Linear) else None)


def _folded(
    value: ir.Value, channels: int, vectors: list[tuple[ir.Node, int]]
) -> Linear | bool | None:
    """Return where the factors end, after the vectors on the way; ``None`` if they cannot."""
    node = value.producer()
    if node is None or value is not node.outputs[0]:
        return None
    linear = linear_of(node)
    if linear is not None:
        return linear if linear.axis == -1 and linear.outputs == channels else None
    if is_op(node, "LayerNormalization"):
        ends = [i for i in (1, 2) if input_at(node, i) is not None]
        vectors += [(node, i) for i in ends]
        return True if all(_is_vector(input_at(node, i), channels) for i in ends) else None
    heads = _heads(node, channels)
    if heads is not None:
        return _folded(heads, channels, vectors)
    if not is_op(node, "Add", "Mul"):
        return None
    for index in (0, 1):
        one = is_op(node, "Mul") and _is_number(node.inputs[index])
        if not _is_vector(node.inputs[index], channels) and not one:
            continue
        vectors.append((node, index))
        inner = node.inputs[1 - index]
        if is_op(node, "Mul"):
            return True
        assert inner is not None
        return _folded(inner, channels, vectors) if only_user(inner) is node else None
    return None


def _heads(node: ir.Node, channels: int) -> ir.Value | None:
    """Return the values that attention takes means of, if that is what a Reshape puts together.

    Each channel of them becomes that channel: factors pass through the product with the weights of
    attention, whatever these are.
    """
    chain: list[ir.Node] = []
    value = node.outputs[0]
    for op_type, index in _ATTENTION:
        before = value.producer()
        if not is_op(before, op_type) or before is None or before.inputs[index] is None:
            return None
        if chain and only_user(value) is not chain[-1]:
            return None
        chain.append(before)
        value = before.inputs[index]  # type: ignore[assignment]
    if only_user(value) is not chain[-1]:
        return None
    swaps = all(ints_attribute(chain[i], "perm") == [0, 2, 1, 3] for i in (1, 3))
    split = chain[4].outputs[0].shape
    if not swaps or split is None or len(split) != 4:
        return None
    head, size = split[2], split[3]
    whole = isinstance(head, int) and isinstance(size, int) and head * size == channels
    return value if whole else None


def _is_number(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.shape in ((), (1,)) and array.dtype == np.float32


def _is_vector(value: ir.Value | None, channels: int) -> bool:
    array = constant(value)
    return array is not None and array.shape == (channels,) and array.dtype == np.float32


def apply_smoothing(model: ir.Model, factors: Mapping[str, str]) -> None:
    """Divide tensors by their factors, and multiply the weights that read them.

    Args:
        model: the prepared model, changed in place.
        factors: by the name of the tensor, as `ptq.graph.rescale.apply.encode` writes them.

    Raises:
        ModelError: the factors are of another model.
    """
    found = {tensor.name: tensor for tensor in find_smoothable(model)}
    constants = Initializers(model)
    for tensor, scale in fitting(found, factors):
        _divide(tensor, scale, constants)
        for reader in tensor.readers:
            reader.scale(constants, None, scale)


def _divide(tensor: Smoothable, scale: Float64, constants: Initializers) -> None:
    if not tensor.folds:
        _insert(tensor, scale, constants)
    if tensor.maker is not None:
        tensor.maker.scale(constants, 1 / scale, None)
    for node, index in tensor.vectors:
        array = constant(node.inputs[index])
        assert array is not None
        divided = (array.astype(np.float64) / scale).astype(array.dtype)
        constants.assign(node, index, divided, f"{node.name}.smoothed.{index}")


def _insert(tensor: Smoothable, scale: Float64, constants: Initializers) -> None:
    """Put a Mul in front of the readers."""
    value, name = tensor.value, tensor.name
    vector = constants.add(f"{name}/smooth_by", (1 / scale).astype(np.float32))
    mul = ir.node("Mul", [value, vector], name=f"{name}/smooth")
    output = mul.outputs[0]
    output.name, output.type, output.shape = f"{name}/smoothed", value.type, value.shape
    maker = value.producer()
    assert maker is not None
    assert maker.graph is not None
    maker.graph.insert_after(maker, mul)
    for reader in tensor.readers:
        reader.node.replace_input_with(0, output)


def inserted(model: ir.Model, factors: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of tensors that a Mul would divide."""
    for tensor in find_smoothable(model):
        if tensor.name in factors and not tensor.folds:
            yield tensor.name
