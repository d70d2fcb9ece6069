"""The biases of integer layers: where one is, or can be put, and adding to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import constant, input_at, int_attribute, is_op, only_user
from ptq.graph.site import Site, Sites, gate_of
from ptq.graph.writer import GraphWriter, label
from ptq.numerics.arrays import F64


@dataclass(frozen=True, slots=True)
class BiasSlot:
    """A layer to whose output something can be added for each channel at no cost.

    Attributes:
        node: name of the Conv, Gemm or MatMul.
        axis: the channel axis of its output, 1 or -1.
        missing: whether it has no bias yet.
    """

    node: str
    axis: int
    missing: bool


def bias_slots(sites: Sites) -> tuple[BiasSlot, ...]:
    """Return the linear sites whose bias can be changed, in graph order.

    Those are the ones that have a constant bias, a MatMul behind which a constant vector is added,
    and a Conv or Gemm that has none: it gets one.
    """
    return tuple(
        BiasSlot(site.name, 1 if is_op(site.node, "Conv") else -1, not _has_bias(site))
        for site in sites.sites
        if site.rule.role == "linear" and _takes_bias(site)
    )


def add_to_biases(model: ir.Model, shifts: Mapping[str, F64]) -> None:
    """Add to the biases of layers of a float model, in place.

    A bias that several layers share is left as it is for the others.

    Args:
        model: the float model.
        shifts: for each output channel, by name of a node that has a `BiasSlot`.
    """
    writer = GraphWriter(model)
    for node in model.graph:
        shift = shifts.get(node.name or "")
        if shift is None:
            continue
        reader, index = place_of_bias(node)
        old = constant(input_at(reader, index))
        base = np.zeros(shift.shape, np.float32) if old is None else old
        array = (base + shift.reshape(base.shape)).astype(np.float32)
        value = writer.constant(model.graph, f"{label(node.name)}/corrected_bias", array)
        if len(reader.inputs) <= index:
            reader.resize_inputs(index + 1)
        reader.replace_input_with(index, value)


def place_of_bias(node: ir.Node) -> tuple[ir.Node, int]:
    """Return the node, and its input, that has the bias of a layer, or would have it."""
    after = only_user(node.outputs[0])
    if not is_op(node, "MatMul") or after is None:
        return node, 2
    return after, 1 if after.inputs[0] is node.outputs[0] else 0


def _has_bias(site: Site) -> bool:
    return input_at(*place_of_bias(site.node)) is not None


def _takes_bias(site: Site) -> bool:
    node, weight = site.node, constant(site.weight)
    assert weight is not None, "a linear site has a constant weight"
    after = only_user(node.outputs[0])
    if is_op(node, "MatMul"):
        if weight.ndim != 2 or not is_op(after, "Add"):
            return False
        bias, channels = constant(input_at(*place_of_bias(node))), weight.shape[1]
    elif is_op(node, "Conv", "Gemm") and site.rule.bias == 2:
        bias, channels = constant(site.bias), weight.shape[0]
        if is_op(node, "Gemm") and not int_attribute(node, "transB", 0):
            channels = weight.shape[1]
        if bias is None:
            # with a bias it would absorb the gate, and it was planned without
            return after is None or gate_of(after) is None
    else:
        return False
    fits = bias is not None and bias.dtype == np.float32 and bias.size == channels
    return fits and bias is not None and bias.shape[-1] == channels
