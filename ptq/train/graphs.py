"""The graphs of a training job: the loss and its gradients, the outputs alone, and the teacher."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ptq.data.feeds import Feed
from ptq.errors import UnsupportedError
from ptq.graph.held import values_by_name
from ptq.train.blocks import find_blocks
from ptq.train.estimators import functions, resolve
from ptq.train.losses import (
    Target,
    cross_entropy,
    divergence,
    mean_loss,
    score_tensor,
    squared_error,
)
from ptq.train.manifest import LABELS, Loss, LossKind
from ptq.train.network import Network
from ptq.train.reverse import Frozen, differentiate, remove_unread
from ptq.train.tape import Tape
from ptq.train.trace import trace
from ptq.train.variants import Variants

#: The output that is the loss.
LOSS = "loss"

_ESTIMATORS = frozenset(function.identifier() for function in functions())


def target_input(tensor: str) -> str:
    """Return the input that takes what the teacher makes of a tensor."""
    return f"target::{tensor}"


def gradient_output(parameter: str) -> str:
    """Return the output that is the gradient of a parameter."""
    return f"d::{parameter}"


def state_output(parameter: str) -> str:
    """Return the output that a state is set to."""
    return f"next::{parameter}"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingGraph:
    """A graph of standard operators that puts out the loss and its gradients.

    Attributes:
        model: inputs are data, targets, labels and parameters, in this order.
        trained: names of the parameters that have a gradient.
        frozen: those that have none, with the reason.
    """

    model: ir.Model
    trained: frozenset[str]
    frozen: tuple[Frozen, ...]


def teacher_graph(model: ir.Model, targets: Sequence[Target]) -> ir.Model:
    """Return the float network with the targets as its outputs."""
    teacher = model.clone()
    values = values_by_name(teacher.graph)
    teacher.graph.outputs[:] = [values[t.tensor] for t in targets]
    remove_unread(teacher.graph)
    return teacher


def choose_targets(model: ir.Model, kind: LossKind, layers: Collection[str] = ()) -> list[Target]:
    """Return what a quantized network is to have in common with the float one: its outputs.

    Args:
        model: the float network.
        kind: that of the loss; scores behind a softmax are taken before it, unless it is ``mse``.
            With ``layers``, what blocks put out belongs to it as well.
        layers: names of the operators whose weights are trained.

    Raises:
        UnsupportedError: no output consists of floats.
    """
    found = {}
    for output in model.graph.outputs:
        if output.dtype not in (ir.DataType.FLOAT, None):
            continue
        scores = None if kind == "mse" else score_tensor(output)
        classes = kind in ("kl", "labels") or scores is not None
        tensor = (scores or output).name or ""
        found[tensor] = Target(tensor, "kl" if classes else "mse")
    if not found:
        raise UnsupportedError("no output of the network consists of floats; nothing to train for")
    if kind == "layers":
        for block in find_blocks(model.graph, layers):
            found.setdefault(block.output, Target(block.output, "mse"))
    return list(found.values())


def evaluation_graph(network: Network, targets: Sequence[Target], loss: Loss) -> ir.Model:
    """Return the quantized network in standard operators, with the loss as its last output."""
    model = _with_loss(network, targets, loss)
    resolve(model.graph)
    model.functions.clear()
    remove_unread(model.graph)
    return model


def training_graph(
    network: Network,
    targets: Sequence[Target],
    loss: Loss,
    feed: Feed,
    folder: Path,
    variants: Variants | None = None,
) -> TrainingGraph:
    """Return the loss of a batch, and its gradients by all parameters.

    Args:
        network: with quantizers.
        targets: what the network is to have in common with the float one.
        loss: what is made small.
        feed: one array for each input of the graph, data, targets, labels and parameters: what
            the batch size is.
        folder: where external data lies.
        variants: which of several equal ways each gradient is computed; keeps what is chosen.

    Raises:
        UnsupportedError: no parameter can be trained.
    """
    model = _with_loss(network, targets, loss)
    graph = model.graph
    for value in graph.inputs:
        value.shape = ir.Shape(feed[value.name or ""].shape)
    traced = trace(model, feed, folder)
    values = values_by_name(graph)
    wanted = [values[p.parameter.name] for p in network.parameters if p.parameter.role != "state"]
    tape = Tape(graph, "out/")
    for name, value in network.states.items():
        # before the sweep, which removes what nothing reads
        made = tape.op("Identity", values[value.name or ""])
        made.name, made.dtype = state_output(name), ir.DataType.FLOAT
        graph.outputs.append(made)
    found = differentiate(graph, values[LOSS], wanted, traced, variants=variants)
    if not found.of:
        first = found.frozen[0]
        raise UnsupportedError(
            f"nothing can be trained: '{first.node}' ({first.op_type}) is in the way: "
            f"{first.reason}"
        )
    for name, value in found.of.items():
        made = tape.op("Identity", value)
        made.name, made.dtype = gradient_output(name), ir.DataType.FLOAT
        graph.outputs.append(made)
    resolve(graph)
    model.functions.clear()
    remove_unread(graph)
    return TrainingGraph(model, frozenset(found.of), found.frozen)


def inlined(network: Network) -> ir.Model:
    """Return the quantized network without functions but the estimators of training."""
    model = network.model.clone()
    InlinePass(criteria=lambda f: f.identifier() not in _ESTIMATORS)(model)
    return model


def _with_loss(network: Network, targets: Sequence[Target], loss: Loss) -> ir.Model:
    model = inlined(network)
    graph = model.graph
    values = values_by_name(graph)
    tape = Tape(graph, "loss/")
    data = [v for v in graph.inputs if v.name in network.data]
    rest = [v for v in graph.inputs if v.name not in network.data]
    terms, added = [], []
    for target in targets:
        found = _student(target.tensor, network, values)
        if loss.kind == "labels":
            added = [_new_input(LABELS, ir.DataType.INT64)]
            terms = [cross_entropy(tape, found, added[0], _classes(found))]
            break
        wanted = _new_input(target_input(target.tensor), ir.DataType.FLOAT)
        added.append(wanted)
        if target.kind == "kl":
            terms.append(divergence(tape, found, wanted, loss.temperature))
        else:
            terms.append(squared_error(tape, found, wanted, target.signal))
    total = mean_loss(tape, terms)
    total.name, total.dtype, total.shape = LOSS, ir.DataType.FLOAT, ir.Shape([])
    graph.inputs[:] = [*data, *added, *rest]
    graph.outputs.append(total)
    return model


def _student(tensor: str, network: Network, values: Mapping[str, ir.Value]) -> ir.Value:
    """Return what the quantized network makes of a tensor."""
    faked = network.activations.get(tensor)
    return values[tensor if faked is None else faked.value.name or ""]


def _classes(scores: ir.Value) -> int:
    if scores.shape is None or not isinstance(scores.shape[-1], int):
        raise UnsupportedError(f"the number of classes of '{scores.name}' is not known")
    return int(scores.shape[-1])


def _new_input(name: str, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype))
