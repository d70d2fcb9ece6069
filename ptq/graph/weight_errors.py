"""What the rounding of weights does to what layers put out, summed up over each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.biases import BiasSlot
from ptq.graph.cut import put_out
from ptq.graph.held import is_dequantizer, params_of
from ptq.graph.passes.edit import constant
from ptq.graph.types import Model
from ptq.graph.writer import GraphWriter

_PREFIX = "ptq_weight_error"


@dataclass(frozen=True, slots=True)
class Tap:
    """Where the sums of one layer come out.

    Attributes:
        node: the layer.
        sums: the output that holds them, shape ``(channels,)``.
        shape: the output that holds the shape of what was summed up.
    """

    node: str
    sums: str
    shape: str


@dataclass(frozen=True, slots=True, eq=False)
class WeightErrors:
    """A serialized model that puts out sums over channels.

    Attributes:
        model: its bytes; external data lies where it did.
        inputs: the inputs that it needs.
        taps: one for each layer.
    """

    model: bytes
    inputs: tuple[str, ...]
    taps: tuple[Tap, ...]


def tap_weight_errors(model: Model, quantized: Model, slots: Sequence[BiasSlot]) -> WeightErrors:
    """Return the quantized model with what the rounding of weights takes from its layers put out.

    Beside each layer there is another, of what rounding took from the weight, that reads the same
    codes. What it puts out is just what the layer lacks, whatever the errors before it.

    Args:
        model: the float model.
        quantized: what `emit_qdq` made of it, or it with other weights; it is not changed.
        slots: the layers.
    """
    weights = {node.name or "": node.inputs[1] for node in model.graph if len(node.inputs) > 1}
    clone = quantized.clone()
    append = _Appender(clone)
    nodes = {node.name or "": node for node in clone.graph}
    found: dict[str, ir.Value] = {}
    for slot in slots:
        node, weight = nodes[slot.node], constant(weights[slot.node])
        assert weight is not None, "a slot has a constant weight"
        lost = append.constant(weight.astype(np.float64) - dequantized(node.inputs[1]))
        value = append.node(node.op_type, [node.inputs[0], lost], dict(node.attributes))
        if slot.axis == 1:
            # a 0 keeps the dimension
            value, over = append.node("Reshape", [value, append.numbers(0, 0, -1)]), [0, 2]
        else:
            value, over = append.node("Flatten", [value], {"axis": -1}), [0]
        summed = append.node("ReduceSum", [value, append.numbers(*over)], {"keepdims": 0})
        found[f"sums/{slot.node}"] = summed
        found[f"shape/{slot.node}"] = append.node("Shape", [value], dtype=ir.DataType.INT64)
    made = put_out(clone, found)
    taps = (
        Tap(s.node, made.outputs[f"sums/{s.node}"], made.outputs[f"shape/{s.node}"]) for s in slots
    )
    return WeightErrors(made.model, tuple(made.inputs), tuple(taps))


def dequantized(weight: ir.Value | None) -> np.ndarray:
    """Return what a layer of a quantized graph multiplies by, as float64."""
    if (array := constant(weight)) is not None:  # of a model that simulates
        return array.astype(np.float64)
    node = None if weight is None else weight.producer()
    assert node is not None and is_dequantizer(node), "the weight of a site is codes"
    codes, params = constant(node.inputs[0]), params_of(node)
    assert codes is not None and params is not None, "they are constant"
    return params.dequantize(codes).astype(np.float64)


class _Appender:
    """Appends nodes to a graph, under names that are free."""

    def __init__(self, model: ir.Model) -> None:
        self.writer = GraphWriter(model)
        self.graph = model.graph

    def constant(self, array: np.ndarray) -> ir.Value:
        """Return a constant of float32."""
        return self.writer.constant(self.graph, f"{_PREFIX}/weight", array.astype(np.float32))

    def numbers(self, *numbers: int) -> ir.Value:
        """Return a constant of int64."""
        return self.writer.constant(self.graph, f"{_PREFIX}/numbers", np.array(numbers, np.int64))

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, ir.Attr] | dict[str, int] | None = None,
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        """Append an operator of one output, and return that."""
        name = f"{_PREFIX}/{op_type}"
        node = ir.node(op_type, inputs, attributes=attributes, name=self.writer.fresh(name))
        output = node.outputs[0]
        output.name, output.dtype = self.writer.fresh(f"{name}_output"), dtype
        self.graph.append(node)
        return output
