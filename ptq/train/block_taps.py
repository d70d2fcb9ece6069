"""What blocks read and put out, as outputs of the networks that they are in."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ptq.errors import UnsupportedError
from ptq.graph.cut import Tapped, put_out
from ptq.graph.held import values_by_name
from ptq.graph.writer import GraphWriter
from ptq.train.blocks import Block


def tap_inputs(model: ir.Model, quantized: ir.Model, block: Block) -> Tapped:
    """Return a quantized network that puts out what a block reads in it.

    Args:
        model: the float network.
        quantized: what became of it; it is not changed.
        block: of the float network.

    Raises:
        UnsupportedError: a tensor is not in the quantized network.
    """
    clone = quantized.clone()
    nodes = {node.name: node for node in clone.graph}
    made = values_by_name(clone.graph)
    floats = values_by_name(model.graph)
    inside = set(block.nodes)
    found: dict[str, ir.Value] = {}
    for name in block.inputs:
        value = made.get(name)
        for reader, index in floats[name].uses():
            same = nodes.get(reader.name) if reader.name in inside else None
            if same is not None and index < len(same.inputs) and same.inputs[index] is not None:
                value = same.inputs[index]
                break
        if value is None:
            raise UnsupportedError(f"the quantized network has no tensor '{name}'")
        found[name] = value
    return _put_out(clone, found, {name: floats[name].dtype for name in found})


def tap_output(model: ir.Model, block: Block, *, inputs: bool = False) -> Tapped:
    """Return a float network that puts out what a block does, and maybe what it reads.

    Args:
        model: the network; it is not changed.
        block: of it.
        inputs: whether to put out what it reads as well.
    """
    clone = model.clone()
    values = values_by_name(clone.graph)
    names = (*(block.inputs if inputs else ()), block.output)
    return _put_out(clone, {n: values[n] for n in names}, {n: values[n].dtype for n in names})


def _put_out(
    model: ir.Model,
    values: Mapping[str, ir.Value],
    dtypes: Mapping[str, ir.DataType | None],
) -> Tapped:
    """Put out values under names of their own: an input cannot be an output."""
    writer = GraphWriter(model)
    outputs = {}
    for name, value in values.items():
        node = ir.node("Identity", [value], name=writer.fresh(f"ptq_block/{name}"))
        node.outputs[0].name = writer.fresh(f"ptq_block/{name}/out")
        node.outputs[0].dtype = dtypes[name] or ir.DataType.FLOAT
        model.graph.append(node)
        outputs[name] = node.outputs[0]
    return put_out(model, outputs)
