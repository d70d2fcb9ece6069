"""One training step of a network, as a graph of ptq's and as torch's: forward, loss, gradients.

The loss is the mean squared error to a target, of all outputs that are floats; the weights of
Conv, ConvTranspose, Gemm, MatMul, GRU and LSTM are trained. torch runs the same forward graph,
which onnx2fx (PyPI) converts; neither is a dependency of ptq.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq.graph.save import to_bytes
from ptq.runtime.session import open_session
from ptq.source import open_source
from ptq.train.reverse import Frozen, differentiate
from ptq.train.tape import Tape
from ptq.train.trace import trace
from ptq.train.variants import Variants

Arrays = Mapping[str, np.ndarray]

#: Operators whose constants are trained, and which of their inputs can be one.
_TRAINED = {
    "Conv": [1],
    "ConvTranspose": [1],
    "Gemm": [0, 1],
    "MatMul": [0, 1],
    "GRU": [1, 2],
    "LSTM": [1, 2],
}


@dataclass(frozen=True, slots=True)
class Step:
    """A training step.

    Attributes:
        forward: the network with its weights, and the loss as its first output.
        graph: the training graph; its inputs are data, targets and weights.
        feed: data and targets.
        weights: what is trained, by name.
        gradients: names of the outputs of the graph, by weight.
        frozen: weights without a gradient.
        nodes: how many operators the forward pass has, and the whole graph.
        chosen: of several ways to a gradient.
        batch: how many samples there are in it.
        operators: the types of those of the forward pass.
    """

    forward: bytes
    graph: bytes
    feed: Arrays
    weights: Arrays
    gradients: Mapping[str, str]
    frozen: tuple[Frozen, ...]
    nodes: tuple[int, int]
    chosen: Mapping[str, str]
    batch: int
    operators: frozenset[str]

    def runner(self, **options: object) -> Callable[[], list[np.ndarray]]:
        """Return what runs the step once: the loss, then the gradients in order."""
        session = open_session(self.graph, **options)
        feed = {**self.feed, **self.weights}
        return lambda: list(session.run(None, feed))


def training_step(
    path: Path, feeds: Iterable[Arrays], batch: int, *, timed: bool = True, seed: int = 0
) -> Step:
    """Return a training step of a network.

    Args:
        path: of the float model.
        feeds: its inputs, one sample each.
        batch: how many of those of the shape of the first are put together, if the model takes
            batches.
        timed: whether the ways to a gradient are timed.
        seed: of the targets.
    """
    model = open_source(path).model
    graph = model.graph
    feed, batch = _batch(model, feeds, batch)
    traced = trace(model, feed, path.parent)
    rng = np.random.default_rng(seed)
    tape = Tape(graph, "loss/")
    terms, targets = [], {}
    for i, output in enumerate([v for v in graph.outputs if traced.is_float(v)]):
        shape = traced.shape(output)
        target = _input(f"target/{i}", shape)
        graph.inputs.append(target)
        targets[target.name] = rng.standard_normal(shape, np.float32)
        error = tape.op("Sub", output, target)
        total = tape.op("ReduceSum", tape.op("Mul", error, error), keepdims=0)
        terms.append(tape.op("Mul", total, 1.0 / max(1, np.prod(shape))))
    loss = terms[0] if len(terms) == 1 else tape.op("Sum", *terms)
    loss.dtype, loss.shape = ir.DataType.FLOAT, ir.Shape([])
    graph.outputs[:] = [loss]
    feed = {**feed, **targets}
    forward = to_bytes(model)
    traced = trace(model, feed, path.parent)
    weights = _trained(graph)
    for value in weights:
        del graph.initializers[value.name]
        graph.inputs.append(value)
    variants, before = Variants(timed=timed), [node.op_type for node in graph]
    found = differentiate(graph, loss, weights, traced, variants=variants)
    for value in found.of.values():
        value.dtype = ir.DataType.FLOAT
        graph.outputs.append(value)
    trained = {v.name: v.const_value.numpy() for v in weights if v.name in found.of}
    _freeze(graph, [v for v in weights if v.name not in found.of])
    return Step(
        forward=forward,
        graph=to_bytes(model),
        feed=feed,
        weights=trained,
        gradients={name: value.name for name, value in found.of.items()},
        frozen=found.frozen,
        nodes=(len(before), len(graph)),
        chosen=variants.chosen,
        batch=batch,
        operators=frozenset(before),
    )


def torch_runner(
    step: Step, *, double: bool = False, threads: int = 1
) -> Callable[[], list[np.ndarray]]:
    """Return what runs the same step once in torch: the loss, then the gradients in order.

    Args:
        step: of which the forward graph and the weights are taken.
        double: whether torch computes in float64; what onnx2fx makes of GRU does not.
        threads: of torch.
    """
    import onnx
    import torch
    from onnx2fx import convert

    torch.set_num_threads(threads)
    module = convert(onnx.load_model_from_string(step.forward))
    names = [n.target for n in module.graph.nodes if n.op == "placeholder"]
    feed = {_plain(n): torch.from_numpy(np.asarray(a)) for n, a in step.feed.items()}
    if double:
        module = module.double()
        feed = {n: a.double() if a.is_floating_point() else a for n, a in feed.items()}
    inputs = [feed[_plain(name)] for name in names]
    buffers = {_plain(n): b for n, b in module.named_buffers()}
    weights = [buffers[_plain(name)] for name in step.weights]
    for weight in weights:
        weight.requires_grad_(True)

    def run() -> list[np.ndarray]:
        loss = module(*inputs)
        loss = loss[0] if isinstance(loss, list | tuple) else loss
        grads = torch.autograd.grad(loss, weights)
        return [loss.detach().numpy(), *(g.numpy() for g in grads)]

    return run


def worst_difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Return the largest difference of gradients, as a share of the largest of its tensor."""
    pairs = zip(found, wanted, strict=True)
    return max((np.abs(a - b).max() / (np.abs(b).max() + 1e-30) for a, b in pairs), default=0.0)


def _plain(name: str) -> str:
    """Return a name as torch can have it."""
    return "".join(c if c.isalnum() else "_" for c in name).lstrip("_")


def _input(name: str, shape: Sequence[int]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def _batch(
    model: ir.Model, feeds: Iterable[Arrays], most: int
) -> tuple[dict[str, np.ndarray], int]:
    """Return samples as one feed, and their number; the first alone if the model has no batches."""
    shapes = [v.shape for v in model.graph.inputs]
    if any(shape and len(shape) and isinstance(shape[0], int) for shape in shapes):
        most = 1
    chosen: list[Arrays] = []
    for feed in feeds:
        if len(chosen) == most:
            break
        if not chosen or all(a.shape == chosen[0][n].shape for n, a in feed.items()):
            chosen.append(feed)
    first = chosen[0]
    whole = {
        n: np.concatenate([f[n] for f in chosen]) if first[n].ndim else first[n] for n in first
    }
    return whole, len(chosen)


def _trained(graph: ir.Graph) -> list[ir.Value]:
    found = {}
    for node in graph:
        for index in _TRAINED.get(node.op_type, []):
            value = node.inputs[index]
            if value is not None and value.is_initializer() and not value.is_graph_input():
                found[value.name] = value
    return list(found.values())


def _freeze(graph: ir.Graph, values: Sequence[ir.Value]) -> None:
    """Make weights constants again."""
    names = {v.name for v in values}
    graph.inputs[:] = [v for v in graph.inputs if v.name not in names]
    for value in values:
        graph.register_initializer(value)
