"""Make tensors of two models comparable: put them out, and feed one model's to the other's layers.

Codes are put out as they are, a quarter of the bytes; operators around them fuse as before. What
follows a cut reads the float model's tensor, quantized as in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from ptq.graph.held import CodeParams, Held, values_by_name
from ptq.graph.save import to_bytes
from ptq.graph.types import Model
from ptq.graph.writer import GraphWriter

_PREFIX = "ptq_compare"


@dataclass(frozen=True, slots=True, eq=False)
class Tapped:
    """A serialized model that puts tensors out.

    Attributes:
        model: its bytes; external data lies where it did.
        inputs: what it is fed: the name of the input, and the tensor of the float model.
        outputs: the output that holds each tensor.
    """

    model: bytes
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def with_shapes_out(model: Model, tensors: Sequence[str]) -> Tapped:
    """Return a model that puts out the shapes of its tensors, which takes no memory."""
    clone = model.clone()
    values, writer = values_by_name(clone.graph), GraphWriter(clone)
    shapes = {}
    for tensor in tensors:
        node = ir.node("Shape", [values[tensor]], name=writer.fresh(f"{_PREFIX}/shape"))
        node.outputs[0].name = writer.fresh(f"{_PREFIX}/shape_of")
        node.outputs[0].dtype = ir.DataType.INT64
        clone.graph.append(node)
        shapes[tensor] = node.outputs[0]
    return put_out(clone, shapes)


def with_tensors_out(model: Model, tensors: Sequence[str]) -> Tapped:
    """Return a model that puts out float tensors, and computes what they need alone.

    Args:
        model: it is not changed.
        tensors: inner tensors of its main graph.
    """
    clone = model.clone()
    values = values_by_name(clone.graph)
    return put_out(clone, {tensor: values[tensor] for tensor in tensors})


def with_held_out(quantized: Model, held: Sequence[Held]) -> Tapped:
    """Return a quantized model that puts out what it holds tensors as, behind its own outputs.

    Without any, its own outputs are what it is said to put out.
    """
    clone = quantized.clone()
    values = values_by_name(clone.graph)
    taps = {h.tensor: values[h.value] for h in held}
    for h in held:
        _type(taps[h.tensor], h.params)
    own = {v.name or "": v for v in clone.graph.outputs}
    return put_out(clone, taps or own, keep=tuple(own.values()))


def cut(
    quantized: Model, held: Sequence[Held], wanted: Sequence[Held], ranks: Mapping[str, int]
) -> Tapped:
    """Return a quantized model in which every layer reads the float model's tensors.

    It is cut at every tensor that both models have. Each layer then computes with its own weight
    and scales, and what it puts out is that layer's error alone.

    Args:
        quantized: it is not changed.
        held: all tensors that both models have, in order.
        wanted: those among them to put out.
        ranks: of the tensors.
    """
    clone = quantized.clone()
    cutter = _Cutter(clone, ranks)
    for h in held:
        cutter.cut(h)
    tapped = put_out(clone, {h.tensor: cutter.outputs[h.tensor] for h in wanted})
    read = set(tapped.inputs)
    inputs = {name: cutter.inputs.get(name, name) for name in read}
    return Tapped(tapped.model, inputs, tapped.outputs)


class _Cutter:
    """Cuts a graph at one tensor after the other.

    Attributes:
        inputs: the float tensor that a new input takes, by the input's name.
        outputs: what a layer puts out, by tensor.
    """

    def __init__(self, model: ir.Model, ranks: Mapping[str, int]) -> None:
        self.graph = model.graph
        self.ranks = ranks
        self.writer = GraphWriter(model)
        self.values = values_by_name(model.graph)
        self.graph.outputs.clear()  # they are put out where they are asked for
        self.fed: dict[str, ir.Value] = {}
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, ir.Value] = {}

    def cut(self, held: Held) -> None:
        value = self.values[held.value]
        if held.shared:
            # the same codes with another scale: what an earlier tensor was quantized to
            self.outputs[held.tensor] = self.fed.get(held.value, value)
        elif self.values[held.cut].is_graph_input():
            self.outputs[held.tensor] = value
        elif held.params is None:
            self._feed(held)
            self.outputs[held.tensor] = value
        elif held.cut == held.value:
            fed = self._feed(held, held.params)
            self.outputs[held.tensor] = value
            self.fed[held.value] = fed
        else:
            made = self.values[held.cut]
            self._feed(held)
            self.outputs[held.tensor] = self._quantized(made, held.params, made.producer())
            self.fed[held.value] = value
        _type(self.outputs[held.tensor], held.params)

    def _feed(self, held: Held, params: CodeParams | None = None) -> ir.Value:
        """Let the readers of a value have the float model's tensor, and return what they read."""
        fed = ir.Value(
            name=self.writer.fresh(f"{_PREFIX}/{held.tensor}"),
            type=ir.TensorType(ir.DataType.FLOAT),
            # kernels for images are chosen by the rank
            shape=ir.Shape([None] * self.ranks[held.tensor]),
        )
        self.graph.inputs.append(fed)
        self.inputs[fed.name or ""] = held.tensor
        if params is not None:
            fed = self._quantized(fed, params, None)
        self.values[held.cut].replace_all_uses_with(fed)
        return fed

    def _quantized(self, value: ir.Value, params: CodeParams, after: ir.Node | None) -> ir.Value:
        constants = [
            self.writer.constant(self.graph, f"{_PREFIX}/parameter", array)
            for array in (params.scale, params.zero_point)
        ]
        node = ir.node(
            "QuantizeLinear",
            [value, *constants],
            attributes=None if params.axis is None else {"axis": params.axis},
            domain=params.domain,
            name=self.writer.fresh(f"{_PREFIX}/Q"),
        )
        node.outputs[0].name = self.writer.fresh(f"{_PREFIX}/quantized")
        if after is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(after, node)
        _type(node.outputs[0], params)
        return node.outputs[0]


def _type(value: ir.Value, params: CodeParams | None) -> None:
    """Say what an output is, as far as is known; onnxruntime infers the rest."""
    if value.type is None:
        codes = None if params is None else ir.DataType.from_numpy(params.zero_point.dtype)
        value.dtype = ir.DataType.FLOAT if codes is None else codes


def put_out(model: ir.Model, taps: Mapping[str, ir.Value], keep: Sequence[ir.Value] = ()) -> Tapped:
    """Serialize a model of which only these outputs are wanted, without what they do not need."""
    outputs = {id(v): v for v in (*keep, *taps.values())}
    model.graph.outputs[:] = list(outputs.values())
    common.RemoveUnusedNodesPass()(model)
    outputs_of = {tensor: value.name or "" for tensor, value in taps.items()}
    unread = [v for v in model.graph.inputs if not v.uses() and not v.is_graph_output()]
    for value in unread:
        model.graph.inputs.remove(value)
    inputs = {v.name or "": v.name or "" for v in model.graph.inputs if not v.is_initializer()}
    return Tapped(to_bytes(model), inputs, outputs_of)
