"""Make the extremes of every channel of inner tensors the outputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.errors import ModelError
from ptq.graph.held import values_by_name
from ptq.graph.passes.edit import Initializers
from ptq.graph.save import to_bytes

_PREFIX = "ptq_channels/"


@dataclass(frozen=True, slots=True)
class ChannelTap:
    """A tensor of which the extremes of each channel are wanted.

    Attributes:
        tensor: its name.
        channels: how many it has.
        axis: where they are: 1, or -1.
        rank: of the tensor, if the axis is 1.
    """

    tensor: str
    channels: int
    axis: int
    rank: int


@dataclass(frozen=True, slots=True, eq=False)
class ChannelModel:
    """A serialized model that puts out the extremes of channels.

    Attributes:
        model: the bytes; external data lies where the float model's does.
        taps: the tensors, in order.
        outputs: for each of them the outputs with its minima and its maxima, ``(channels,)`` each.
    """

    model: bytes
    taps: tuple[ChannelTap, ...]
    outputs: tuple[tuple[str, str], ...]


def with_outputs(model: ir.Model, tensors: Sequence[str]) -> bytes:
    """Return the bytes of a copy of the model that puts out these tensors of its main graph."""
    opened = model.clone()
    values = values_by_name(opened.graph)
    opened.graph.outputs[:] = [values[tensor] for tensor in tensors]
    for value in opened.graph.outputs:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    return to_bytes(opened)


def tap_channels(model: ir.Model, taps: Sequence[ChannelTap]) -> ChannelModel:
    """Return a copy of the model that puts out minimum and maximum of each channel.

    Args:
        model: the model, of opset 18 or newer; it is not changed.
        taps: inner float tensors of the main graph.

    Raises:
        ModelError: a tensor does not exist.
    """
    tapped = model.clone()
    graph, constants = tapped.graph, Initializers(tapped)
    values = values_by_name(graph)
    graph.outputs.clear()
    names = []
    for number, tap in enumerate(taps):
        if tap.tensor not in values:
            raise ModelError(f"tensor '{tap.tensor}' is not in the model")
        value, axes = values[tap.tensor], [0, *range(2, tap.rank)]
        if tap.axis == -1:
            rows = constants.add(f"{_PREFIX}{number}/rows", np.array([-1, tap.channels], np.int64))
            reshape = ir.node("Reshape", [value, rows], name=f"{_PREFIX}{number}/reshape")
            graph.append(reshape)
            value, axes = reshape.outputs[0], [0]
        over = constants.add(f"{_PREFIX}{number}/axes", np.array(axes, np.int64))
        pair = f"{_PREFIX}{number}/lo", f"{_PREFIX}{number}/hi"
        for op_type, name in zip(("ReduceMin", "ReduceMax"), pair, strict=True):
            reduce = ir.node(op_type, [value, over], {"keepdims": 0}, name=name)
            output = reduce.outputs[0]
            output.name, output.type = name, ir.TensorType(ir.DataType.FLOAT)
            output.shape = ir.Shape([tap.channels])
            graph.append(reduce)
            graph.outputs.append(output)
        names.append(pair)
    return ChannelModel(to_bytes(tapped), tuple(taps), tuple(names))
