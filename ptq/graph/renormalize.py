"""Give tensors the mean and the deviation of each channel that they are known to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ptq.graph.held import values_by_name
from ptq.graph.passes.edit import Initializers
from ptq.numerics.marginal import Normal

_PREFIX = "ptq_renormalized/"

#: Added to a variance, as a share of the power that is known: a channel that is constant on these
#: inputs, but for rounding, stays at its mean.
_TINY = 1e-9


def renormalized(model: ir.Model, normals: Mapping[str, Normal]) -> ir.Model:
    """Return a copy in which tensors have their known moments on any input.

    What batchnorm does in training: of each run, the mean and the deviation of each channel are
    taken over batch and positions and replaced by those of the table. Made-up inputs then give all
    later layers values of the right size.

    Args:
        model: the prepared model, of opset 18 or newer.
        normals: of each channel, axis 1 of a tensor, by its name.
    """
    made = model.clone()
    values, constants = values_by_name(made.graph), Initializers(made)
    for name, normal in normals.items():
        value = values.get(name)
        if value is not None and value.producer() is not None and value.shape is not None:
            _renormalize(value, normal, constants)
    return made


def _renormalize(value: ir.Value, normal: Normal, constants: Initializers) -> None:
    producer, rank, name = value.producer(), len(value.shape or ()), value.name or ""
    assert producer is not None and producer.graph is not None
    chain = _Chain(f"{_PREFIX}{name}/")
    column = (1, -1, *[1] * (rank - 2))
    over = constants.add(f"{chain.prefix}axes", np.array([0, *range(2, rank)], np.int64))
    mean = constants.add(f"{chain.prefix}mean", normal.mean.reshape(column).astype(np.float32))
    std = constants.add(f"{chain.prefix}std", normal.std.reshape(column).astype(np.float32))
    power = _TINY * (normal.mean**2 + normal.std**2) + np.finfo(np.float32).tiny
    tiny = constants.add(f"{chain.prefix}tiny", power.reshape(column).astype(np.float32))
    uses, wanted = list(value.uses()), value.is_graph_output()
    centred = chain.node("Sub", [value, chain.node("ReduceMean", [value, over])])
    variance = chain.node("ReduceMean", [chain.node("Mul", [centred, centred]), over])
    deviation = chain.node("Sqrt", [chain.node("Add", [variance, tiny])])
    scaled = chain.node("Mul", [chain.node("Div", [centred, deviation]), std])
    moved = chain.node("Add", [scaled, mean])
    producer.graph.insert_after(producer, chain.nodes)
    for user, index in uses:
        user.replace_input_with(index, moved)
    if wanted:
        outputs = producer.graph.outputs
        outputs[:] = [moved if v is value else v for v in outputs]
    moved.shape = value.shape
    value.name, moved.name = f"{chain.prefix}before", name


class _Chain:
    """Nodes of one tensor, one after the other."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[ir.Node] = []

    def node(self, op_type: str, inputs: Sequence[ir.Value]) -> ir.Value:
        made = ir.node(op_type, inputs, name=f"{self.prefix}{len(self.nodes)}")
        made.outputs[0].name = f"{made.name}/output"
        made.outputs[0].dtype = ir.DataType.FLOAT
        self.nodes.append(made)
        return made.outputs[0]
