"""A block by itself: as it is, and quantized, with the error of its output and what that follows.

The weights of the quantized block are inputs of its graph: between codes while they are found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.data.feeds import Feed
from ptq.errors import UnsupportedError
from ptq.graph.clip_codes import params_of
from ptq.graph.held import values_by_name
from ptq.graph.passes.edit import is_constant
from ptq.graph.save import to_bytes
from ptq.graph.site import Sites
from ptq.plan import Decision
from ptq.train.blocks import Block
from ptq.train.estimators import functions, resolve
from ptq.train.reverse import differentiate, remove_unread
from ptq.train.straight_through import DOMAIN, rounded
from ptq.train.tape import Tape
from ptq.train.trace import Trace, trace

#: Inputs and outputs beside what the block reads and its weights.
LOSS, TARGET = "loss", "target"


@dataclass(frozen=True, slots=True)
class FakeActivation:
    """A tensor that is quantized in the network.

    Attributes:
        tensor: its name.
        decision: how.
        readers: names of the operators that read its codes; ``None`` for all.
    """

    tensor: str
    decision: Decision
    readers: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BlockGraph:
    """A quantized block.

    Attributes:
        forward: a serialized model that puts out the error of the block's output alone.
        training: the same with its gradients by the weights.
        weights: the inputs that are weights, by the name of the weight.
        gradients: the outputs that are gradients, likewise.
        masks: the inputs that say, for each element of an activation, whether it is quantized, with
            their shapes.
    """

    forward: bytes
    training: bytes
    weights: Mapping[str, str]
    gradients: Mapping[str, str]
    masks: Mapping[str, tuple[int, ...]]


def fake_activations(sites: Sites, decisions: Mapping[str, Decision]) -> tuple[FakeActivation, ...]:
    """Return what is quantized in a network.

    What an integer kernel puts out is read quantized by all, what is computed in float by integer
    kernels alone.
    """
    made = {v for s in sites.sites if s.requantize for v in s.outputs}
    found = []
    for name, value in sites.quantized().items():
        if name in decisions and not value.is_initializer():
            integer = frozenset(s.name for s in sites.sites if value in s.activations)
            found.append(FakeActivation(name, decisions[name], None if value in made else integer))
    return tuple(found)


def input_of(tensor: str) -> str:
    """Return the input of a block's graph that takes a tensor."""
    return f"in::{tensor}"


def extract(model: ir.Model, block: Block, feed: Feed) -> ir.Model:
    """Return the model that a block is by itself.

    Args:
        model: the float network; it is not changed.
        block: of it.
        feed: what the block reads, by the name of the tensor.
    """
    clone = model.clone()
    graph = clone.graph
    values = values_by_name(graph)
    inside = {node for node in graph if node.name in set(block.nodes)}
    inputs = []
    for name in block.inputs:
        array = feed[name]
        given = ir.Value(
            name=input_of(name),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape([None] * array.ndim),
        )
        for user, index in list(values[name].uses()):
            if user in inside:
                user.replace_input_with(index, given)
        inputs.append(given)
    output = values[block.output]
    output.dtype = ir.DataType.FLOAT
    graph.outputs[:] = [output]
    remove_unread(graph)
    graph.inputs[:] = inputs
    for node in graph:
        for value in node.outputs:
            value.shape = None  # of one sample
    clone.metadata_props.clear()
    return clone


def values_in(extracted: ir.Model, feed: Feed) -> Trace:
    """Return the trace of a block by itself on what it reads."""
    return trace(extracted, {input_of(name): array for name, array in feed.items()})


def quantized_block(  # noqa: PLR0913 - a block, what is quantized in it, and what it is run on
    extracted: ir.Model,
    block: Block,
    weights: Sequence[str],
    activations: Sequence[FakeActivation],
    feed: Feed,
    target: np.ndarray,
    *,
    drop: bool = False,
    importance: np.ndarray | None = None,
) -> BlockGraph:
    """Return the error of a quantized block, and its gradients.

    The error is the mean of ``(target - output)²``, each by its importance if it has one.

    Args:
        extracted: the block by itself; it is not changed.
        block: what it is.
        weights: names of the weights to find.
        activations: what is quantized in the network; what the block puts out is not, here.
        feed: what it reads: what the batch is.
        target: what it is to put out.
        drop: whether masks say which elements of activations are quantized.
        importance: how much elements of the output count; broadcasts to it.

    Raises:
        UnsupportedError: it cannot be differentiated by a weight.
    """
    model = extracted.clone()
    graph = model.graph
    tape = Tape(graph, "ptq/")
    given = {name: _weight_input(graph, name) for name in weights}
    inside = [a for a in activations if a.tensor != block.output]
    shapes = values_in(extracted, feed).shapes if drop else None
    masks = _quantize_activations(tape, inside, shapes)
    loss = _error(tape, values_by_name(graph)[block.output], target.shape, importance)
    graph.sort()
    graph.outputs[:] = [loss]
    for function in functions():
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = 1
    forward = _plain(model.clone())
    filled = {input_of(name): array for name, array in feed.items()}
    filled[TARGET] = target
    filled.update({name: np.ones(shape, bool) for name, shape in masks.items()})
    filled.update({v.name or "": _zeros(v) for v in given.values()})
    found = differentiate(graph, loss, list(given.values()), trace(model, filled))
    if found.frozen:
        first = found.frozen[0]
        raise UnsupportedError(f"'{first.node}' ({first.op_type}): {first.reason}")
    gradients = {
        name: _named(tape.op("Identity", found.of[value.name or ""]), f"d::{name}")
        for name, value in given.items()
    }
    graph.outputs.extend(gradients.values())
    return BlockGraph(
        forward,
        _plain(model),
        {name: value.name or "" for name, value in given.items()},
        {name: value.name or "" for name, value in gradients.items()},
        masks,
    )


def _quantize_activations(
    tape: Tape,
    activations: Sequence[FakeActivation],
    shapes: Mapping[str, tuple[int, ...]] | None,
) -> dict[str, tuple[int, ...]]:
    """Quantize what a block makes, and return the masks that there are if shapes are given."""
    values = values_by_name(tape.graph)
    masks: dict[str, tuple[int, ...]] = {}
    for activation in activations:
        value, only = values.get(activation.tensor), activation.readers
        if value is None:
            continue
        readers = [(n, i) for n, i in value.uses() if only is None or n.name in only]
        seen = _fake_quantized(tape, value, activation.decision)
        if shapes is not None:
            name = f"mask::{activation.tensor}"
            masks[name] = shapes[activation.tensor]
            mask = _new_input(tape.graph, name, ir.DataType.BOOL, masks[name])
            seen = tape.op("Where", mask, seen, value)
        for node, index in readers:
            node.replace_input_with(index, seen)
    return masks


def _error(
    tape: Tape, output: ir.Value, shape: Sequence[int], importance: np.ndarray | None
) -> ir.Value:
    """Return the mean squared error of an output."""
    wanted = _new_input(tape.graph, TARGET, ir.DataType.FLOAT, shape)
    error = tape.op("Sub", output, wanted)
    square = tape.op("Mul", error, error)
    if importance is not None:
        square = tape.op("Mul", square, importance)
    total = tape.op("ReduceSum", square, keepdims=0)
    loss = _named(tape.op("Mul", total, 1.0 / max(math.prod(shape), 1)), LOSS)
    loss.shape = ir.Shape([])
    return loss


def _named(value: ir.Value, name: str) -> ir.Value:
    value.name, value.dtype = name, ir.DataType.FLOAT
    return value


def _plain(model: ir.Model) -> bytes:
    resolve(model.graph)
    model.functions.clear()
    model.opset_imports.pop(DOMAIN, None)
    remove_unread(model.graph)
    return to_bytes(model)


def _weight_input(graph: ir.Graph, name: str) -> ir.Value:
    """Make a constant an input."""
    constants = {v for n in graph for v in n.inputs if v is not None and is_constant(v)}
    old = next(v for v in constants if v.name == name)
    assert old.const_value is not None
    shape = tuple(int(n) for n in old.const_value.shape.numpy())
    new = _new_input(graph, f"weight::{name}", ir.DataType.FLOAT, shape)
    for node, index in list(old.uses()):
        node.replace_input_with(index, new)
    graph.initializers.pop(name, None)
    return new


def _new_input(graph: ir.Graph, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
    graph.inputs.append(value)
    return value


def _zeros(value: ir.Value) -> np.ndarray:
    assert value.shape is not None
    return np.zeros(value.shape.numpy(), np.float32)


def _fake_quantized(tape: Tape, value: ir.Value, decision: Decision) -> ir.Value:
    """Return a value as its codes stand for it; the gradient stops where they saturate."""
    params = params_of(decision)
    zero = int(params.zero_point)
    lo, hi = float(params.qtype.qmin - zero), float(params.qtype.qmax - zero)
    steps = rounded(tape, tape.op("Div", value, np.asarray(params.scale)))
    return tape.op("Mul", tape.op("Clip", steps, lo, hi), np.asarray(decision.step, np.float32))
