"""The layers of a float model whose weight can be rounded by what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.biases import BiasSlot, place_of_bias
from ptq.graph.cut import with_tensors_out
from ptq.graph.layer_inputs import LayerInput, LayerInputs, window_of
from ptq.graph.passes.edit import constant, input_at, int_attribute, is_op
from ptq.graph.scheme import linear_of
from ptq.graph.types import Model
from ptq.graph.writer import GraphWriter, array_of, float_array_of, label
from ptq.numerics.arrays import F32
from ptq.numerics.patches import Window


@dataclass(frozen=True, slots=True, eq=False)
class WeightLayer:
    """A convolution, a dense layer or a product with a constant matrix, in the main graph.

    Recurrent operators have two: one that reads their input, and one their own output.

    Attributes:
        node: the name of the operator.
        weight: the name of the weight.
        array: what it is, float32; of recurrent operators as a matrix.
        axis: the axis of it that has the output channels.
        groups: into how many groups the channels fall.
        window: how it walks, if it is a convolution.
        input: the tensor that it reads.
        level: how many other layers are before it, one behind the other.
        takes_bias: whether there is a bias that can be changed, or it can get one, at no cost.
        readers: how many operators read the weight, this one among them.
    """

    node: str
    weight: str
    array: F32
    axis: int
    groups: int
    window: Window | None
    input: str
    level: int
    takes_bias: bool
    readers: int

    @property
    def key(self) -> str:
        """A name that no other layer has."""
        return f"{self.node}\n{self.weight}"

    @property
    def columns(self) -> int:
        """How many inputs each output has."""
        return int(self.array.size) // int(self.array.shape[self.axis])


def find_weight_layers(model: Model) -> tuple[WeightLayer, ...]:
    """Return the layers of a prepared model with a constant float32 weight, in graph order.

    Left out are those whose input is no tensor of the main graph's nodes or inputs, or constant.
    """
    behind: dict[int, int] = {}
    found: list[WeightLayer] = []
    for node in model.graph:
        level = max((behind.get(id(v), 0) for v in node.inputs if v is not None), default=0)
        layer = _layer(node, level)
        layers = _recurrent(node, level) if layer is None else [layer]
        found += layers
        level += len(layers)
        behind.update((id(v), level) for v in node.outputs)
    return tuple(found)


def _layer(node: ir.Node, level: int) -> WeightLayer | None:
    if not is_op(node, "Conv", "Gemm", "MatMul"):
        return None
    x, weight = input_at(node, 0), input_at(node, 1)
    array = float_array_of(weight)
    if x is None or weight is None or array is None or array_of(x) is not None or not array.size:
        return None
    if is_op(node, "Conv"):
        groups = int_attribute(node, "group", 1)
        if array.ndim < 3 or groups < 1 or array.shape[0] % groups:
            return None
        axis = 0
    else:
        linear = linear_of(node)
        if isinstance(linear, str):
            return None
        groups, axis = 1, 1 - linear.inner
    return WeightLayer(
        node=node.name or "",
        weight=weight.name or "",
        array=np.asarray(array, np.float32),
        axis=axis,
        groups=groups,
        window=window_of(node, array.shape),
        input=x.name or "",
        level=level,
        takes_bias=_takes_bias(node, array.shape[axis]),
        readers=len(weight.uses()),
    )


def _recurrent(node: ir.Node, level: int) -> list[WeightLayer]:
    """Return the products of a recurrent operator of one direction.

    The second reads the state, that is, the output at the step before; with the reset gate of a
    GRU in between it is the state as well, before the gate.
    """
    if not is_op(node, "GRU", "LSTM", "RNN"):
        return []
    found: list[WeightLayer] = []
    for index, read in ((1, input_at(node, 0)), (2, node.outputs[0])):
        weight = input_at(node, index)
        array = float_array_of(weight)
        if weight is None or array is None or array.ndim != 3 or len(array) != 1:
            continue
        if read is None or not read.name or array_of(read) is not None:
            continue
        found.append(
            WeightLayer(
                node=node.name or "",
                weight=weight.name or "",
                array=np.asarray(array[0], np.float32),
                axis=0,
                groups=1,
                window=None,
                input=read.name,
                level=level + len(found),
                takes_bias=False,
                readers=len(weight.uses()),
            )
        )
    return found


def _takes_bias(node: ir.Node, channels: int) -> bool:
    place, index = place_of_bias(node)
    if is_op(node, "MatMul") and not is_op(place, "Add"):
        return False
    bias = input_at(place, index)
    if bias is None:
        return True
    array = constant(bias)
    fits = array is not None and array.dtype == np.float32 and array.size == channels
    return fits and array is not None and array.shape[-1] == channels


def bias_slot(layer: WeightLayer) -> BiasSlot:
    """Return where something is added to the output of a layer, which takes a bias."""
    return BiasSlot(layer.node, -1 if layer.window is None else 1, missing=False)


def tap_layers(model: Model, layers: Sequence[WeightLayer]) -> LayerInputs:
    """Return a model that puts out what layers read, and computes what that needs alone.

    Args:
        model: the float model, with other weights or not; it is not changed.
        layers: those of it; each gets what it reads under its key, not under the weight's name.
    """
    made = with_tensors_out(model, tuple(dict.fromkeys(layer.input for layer in layers)))
    taps = (LayerInput(y.key, made.outputs[y.input], None, y.window) for y in layers)
    return LayerInputs(made.model, tuple(made.inputs), tuple(taps))


def tap_rows(model: Model, tensors: Sequence[str]) -> LayerInputs:
    """Return a model that puts out tensors, of which the rows are wanted under their names."""
    made = with_tensors_out(model, tensors)
    taps = (LayerInput(tensor, made.outputs[tensor], None, None) for tensor in tensors)
    return LayerInputs(made.model, tuple(made.inputs), tuple(taps))


def with_weights(model: Model, weights: Mapping[str, F32]) -> Model:
    """Return a copy of a model with other constants in the main graph.

    Args:
        model: it is not changed.
        weights: by the name of the value; what is no constant of the main graph is left out.
    """
    clone = model.clone()
    writer, graph = GraphWriter(clone), clone.graph
    values = {v.name: v for v in graph.initializers.values()}
    values.update((n.outputs[0].name, n.outputs[0]) for n in graph if is_op(n, "Constant"))
    for name, array in weights.items():
        value = values.get(name)
        if value is not None and array_of(value) is not None and not value.is_graph_output():
            shape = value.shape.numpy() if value.shape is not None else array.shape
            new = writer.constant(graph, label(name), array.reshape(shape))
            value.replace_all_uses_with(new)
    return clone
