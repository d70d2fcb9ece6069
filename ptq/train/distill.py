"""Make up inputs whose inner statistics are those that batch normalizations hold.

Reference: Cai et al., "ZeroQ: A Novel Zero Shot Quantization Framework", CVPR 2020, section 3.1,
equation 4: inputs are found by gradient descent that bring mean and deviation of every channel
before or behind a batch normalization near those of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq.data.feeds import Feed
from ptq.errors import UnsupportedError
from ptq.graph.held import values_by_name
from ptq.graph.save import to_bytes
from ptq.numerics.marginal import Normal
from ptq.runtime.session import open_session, run
from ptq.train.manifest import TrainedArray
from ptq.train.optimizers import OPTIMIZERS, SCHEDULES
from ptq.train.reverse import differentiate, remove_unread
from ptq.train.tape import Tape
from ptq.train.trace import trace

#: Of the start's deviation, how far a value may go in a step; measured on four models.
_RATE = 0.1

#: Channels that vary less than this share of the most varying one say nothing.
_STILL = 1e-3

#: Keeps the gradient of a root finite.
_TINY = 1e-6

_LOSS, _GRADIENT = "loss", "gradient"


class Distiller:
    """Turns made-up inputs of a model into such as its batch normalizations have seen.

    Args:
        model: the prepared model; it is not changed.
        normals: mean and deviation of the channels of tensors, by name.
        feed: one feed of the size that all have.
        image: the input that is changed; the others stay.
        folder: where external data lies.

    Raises:
        UnsupportedError: no statistics depend on the input in a way that can be differentiated.
    """

    def __init__(
        self,
        model: ir.Model,
        normals: Mapping[str, Normal],
        feed: Feed,
        image: str,
        folder: Path,
    ) -> None:
        self.image = image
        distilled = _with_loss(model, normals)
        graph = distilled.graph
        for value in graph.inputs:
            value.shape = ir.Shape(feed[value.name or ""].shape)
        traced = trace(distilled, feed, folder)
        wanted = next(v for v in graph.inputs if v.name == image)
        found = differentiate(graph, values_by_name(graph)[_LOSS], [wanted], traced)
        if image not in found.of:
            why = found.frozen[0]
            raise UnsupportedError(
                f"input '{image}' cannot be fitted to the batch normalizations: '{why.node}' "
                f"({why.op_type}) is in the way: {why.reason}"
            )
        gradient = Tape(graph, "out/").op("Identity", found.of[image])
        gradient.name, gradient.dtype = _GRADIENT, ir.DataType.FLOAT
        graph.outputs.append(gradient)
        remove_unread(graph)
        self.session = open_session(to_bytes(distilled), folder=folder)

    def fit(self, feed: Feed, steps: int, on_step: Callable[[], None] = lambda: None) -> Feed:
        """Return a feed that fits better than the one given; the best of all steps.

        Args:
            feed: to begin with.
            steps: how many.
            on_step: called after each.
        """
        start = np.array(feed[self.image], np.float32)
        array = TrainedArray(
            name=self.image, shape=start.shape, role="weight", site=self.image, gradient=_GRADIENT
        )
        optimizer = OPTIMIZERS["adam"]((array,))
        rate = _RATE * (float(start.std()) or 1.0)
        values, best, least = {self.image: start.copy()}, start, np.inf
        for step in range(steps):
            loss, gradient = run(
                self.session, {**feed, **values}, [_LOSS, _GRADIENT], where="a made-up input"
            )
            if loss < least:
                best, least = values[self.image].copy(), float(loss)
            optimizer.step(
                values, {self.image: np.array(gradient)}, rate * SCHEDULES["cosine"](step, steps)
            )
            on_step()
        return {**feed, self.image: best}

    def loss(self, feed: Feed) -> float:
        """Return how far the statistics of a feed are off, in squared deviations of a channel."""
        return float(run(self.session, feed, [_LOSS], where="a made-up input")[0])


def _with_loss(model: ir.Model, normals: Mapping[str, Normal]) -> ir.Model:
    """Return a model that puts out how far the statistics of its inputs are off."""
    distilled = model.clone()
    graph = distilled.graph
    values, tape = values_by_name(graph), Tape(graph, "distill/")
    terms = []
    for name, normal in normals.items():
        value = values[name]
        if value.shape is None or len(value.shape) < 2:
            continue
        axes = [i for i in range(len(value.shape)) if i != 1]
        shape = [-1 if i == 1 else 1 for i in range(len(value.shape))]
        terms.append(_term(tape, value, normal, axes, shape))
    if not terms:
        raise UnsupportedError("no batch normalization tells what its inputs were like")
    total = tape.op("Mul", tape.op("Sum", *terms), 1.0 / len(terms))
    total.name, total.dtype, total.shape = _LOSS, ir.DataType.FLOAT, ir.Shape([])
    graph.outputs[:] = [total]
    return distilled


def _term(
    tape: Tape, value: ir.Value, normal: Normal, axes: list[int], shape: list[int]
) -> ir.Value:
    """Return the mean over channels of the squared errors of mean and deviation."""
    std = normal.std.astype(np.float32)
    moving = (std > _STILL * std.max(initial=0.0)).astype(np.float32)
    unit = np.where(moving > 0, std, 1.0).astype(np.float32)
    mean = tape.op("ReduceMean", value, axes, keepdims=0)
    apart = tape.op("Sub", value, tape.op("Reshape", mean, shape))
    variance = tape.op("ReduceMean", tape.op("Mul", apart, apart), axes, keepdims=0)
    deviation = tape.op("Sqrt", tape.op("Add", variance, _TINY))
    errors = [
        tape.op("Div", tape.op("Sub", found, wanted), unit)
        for found, wanted in ((mean, normal.mean.astype(np.float32)), (deviation, std))
    ]
    squares = tape.op("Add", *(tape.op("Mul", e, e) for e in errors))
    share = moving / np.float32(max(float(moving.sum()), 1.0))
    return tape.op("ReduceSum", tape.op("Mul", squares, share), [0], keepdims=0)
