"""How much the channels of what blocks put out count for what the network puts out.

It is the diagonal of the Gauss-Newton matrix of the squared error of the network's outputs, each
by its signal: the expectation of the squared gradient of ``r · outputs`` for random ``r``. It is
taken over channels, and the mean over samples.

Reference: Li et al., "BRECQ", ICLR 2021, equation 10, of which the gradient, that of the task's
loss, is 0 for a network that distils itself; Martens, "New Insights and Perspectives on the Natural
Gradient Method", JMLR 2020, section 9.2, for random ``r``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq.data.feeds import Feed
from ptq.errors import UnsupportedError
from ptq.graph.held import values_by_name
from ptq.graph.passes.edit import is_op
from ptq.graph.save import to_bytes
from ptq.numerics.arrays import F32, F64
from ptq.runtime.session import open_session, run
from ptq.train.blocks import Block
from ptq.train.estimators import resolve
from ptq.train.graphs import choose_targets
from ptq.train.reverse import differentiate, remove_unread
from ptq.train.tape import Tape
from ptq.train.trace import trace

#: Samples that it is measured on: noise of less than a third for each channel, by twice as many
#: positions at least.
_SAMPLES = 32

#: Rows of vectors, as of transformers, have their channels last; images have them in front.
_RANK_OF_ROWS = 3


def channel_importance(
    model: ir.Model,
    blocks: Sequence[Block],
    feeds: Sequence[Feed],
    folder: Path,
    *,
    seed: int = 0,
    threads: int = 1,
) -> dict[str, F32]:
    """Return how much each channel counts, 1 on the average, by name of the output.

    Args:
        model: the float network; it is not changed.
        blocks: of it.
        feeds: the data; those of the shapes of the first are used.
        folder: where external data lies.
        seed: of the random directions.
        threads: within an operator.

    Returns:
        Arrays that broadcast to the outputs; none of a block behind which something cannot be
        differentiated, or the network puts out no floats.
    """
    first = feeds[0]
    alike = [f for f in feeds if all(f[n].shape == a.shape for n, a in first.items())]
    try:
        graph = _Directions(model, blocks, first, folder)
    except UnsupportedError:  # no output consists of floats
        return {}
    if not graph.gradients:
        return {}
    session = open_session(to_bytes(graph.model), threads=threads, folder=folder)
    rng = np.random.default_rng(seed)
    sums: dict[str, F64] = {}
    names = list(graph.gradients.values())
    for feed in alike[:_SAMPLES]:
        given = {name: feed[name] for name in graph.inputs}
        given.update({n: rng.standard_normal(s, np.float32) for n, s in graph.directions.items()})
        found = run(session, given, names, where="a calibration sample")
        for tensor, gradient in zip(graph.gradients, found, strict=True):
            axis = graph.axes[tensor]
            over = tuple(i for i in range(gradient.ndim) if i != axis)
            mean = np.square(gradient, dtype=np.float64).mean(axis=over, keepdims=True)
            sums[tensor] = sums[tensor] + mean if tensor in sums else mean
    return {
        tensor: (total / total.mean()).astype(np.float32)
        for tensor, total in sums.items()
        if np.isfinite(total).all() and total.mean() > 0
    }


class _Directions:
    """A network that puts out the gradients of its outputs in given directions, by tensors."""

    def __init__(self, model: ir.Model, blocks: Sequence[Block], feed: Feed, folder: Path) -> None:
        clone = model.clone()
        graph = clone.graph
        values = values_by_name(graph)
        traced = trace(clone, feed, folder)
        nodes = {node.name or "": node for node in graph}
        tensors = [block.output for block in blocks]
        ranks = {t: len(traced.shape(values[t])) for t in tensors}
        self.axes = {b.output: _channels(b, nodes, ranks[b.output]) for b in blocks}
        tape = Tape(graph, "ptq_importance/")
        terms = []
        self.directions: dict[str, tuple[int, ...]] = {}
        for target in choose_targets(clone, "mse"):
            value, name = values[target.tensor], f"direction::{target.tensor}"
            self.directions[name] = traced.shape(value)
            given = ir.Value(
                name=name,
                type=ir.TensorType(ir.DataType.FLOAT),
                shape=ir.Shape(self.directions[name]),
            )
            graph.inputs.append(given)
            terms.append(tape.op("ReduceSum", tape.op("Mul", value, given), keepdims=0))
        loss = terms[0] if len(terms) == 1 else tape.op("Sum", *terms)
        filled = {**feed, **{n: np.zeros(s, np.float32) for n, s in self.directions.items()}}
        found = differentiate(
            graph, loss, [values[t] for t in tensors], trace(clone, filled, folder)
        )
        graph.outputs[:] = []
        self.gradients: dict[str, str] = {}
        for tensor, value in found.of.items():
            made = tape.op("Identity", value)
            made.dtype = ir.DataType.FLOAT
            graph.outputs.append(made)
            self.gradients[tensor] = made.name or ""
        resolve(graph)
        remove_unread(graph)
        for unread in [v for v in graph.inputs if not v.uses()]:
            graph.inputs.remove(unread)
        read = {v.name or "" for v in graph.inputs}
        self.directions = {n: s for n, s in self.directions.items() if n in read}
        self.inputs = [name for name in feed if name in read]
        self.model = clone


def _channels(block: Block, nodes: Mapping[str, ir.Node], rank: int) -> int:
    """Return the axis of the channels of what a block puts out."""
    convolves = bool(block.layers) and is_op(nodes[block.layers[-1]], "Conv", "ConvTranspose")
    return 1 if rank > _RANK_OF_ROWS or (convolves and rank > 1) else rank - 1
