"""Reconstruct a block: round its weights so that it puts out what the float one does.

Reference: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
equation 25, of a layer with its activation function; Li et al., "BRECQ", ICLR 2021, equation 10, of
a block; Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training
Quantization", ICLR 2022, section 4.2, with activations quantized at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ptq.errors import DataError
from ptq.graph.save import to_bytes
from ptq.numerics.adaround import Annealing, SoftWeight
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F32, AnyArray
from ptq.runtime.session import Session, open_session, run
from ptq.train.block_graph import (
    LOSS,
    TARGET,
    BlockGraph,
    FakeActivation,
    input_of,
    quantized_block,
    values_in,
)
from ptq.train.blocks import Block
from ptq.train.streams import Stream

#: A batch has about so many values in all of the block, and so many samples at most.
_VALUES, _MOST_BATCH = 1 << 19, 32

#: Batches on which it is measured whether rounding came out better than to nearest.
_MEASURED = 16

#: So many steps apart it is looked whether anything is left to find.
_LOOK = 25

#: How much closer than the last digits two runs must agree to be the same.
_SAME = 1e-3


@dataclass(frozen=True, slots=True)
class Descent:
    """How weights are found.

    Attributes:
        iterations: steps of a block.
        annealing: how they go on.
        seed: of the batches, and of what keeps its float value.
    """

    iterations: int = 500
    annealing: Annealing = field(default_factory=Annealing)
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Reconstructed:
    """What was found for one block.

    Attributes:
        weights: in codes, by name; as they were, if that is no better.
        before: the mean squared error of the output with the weights as they were.
        after: with these.
    """

    weights: Mapping[str, QTensor]
    before: float
    after: float


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A block, and what it reads and is to put out.

    Attributes:
        extracted: the float block by itself.
        block: what it is.
        weights: the float weights and their codes, by name.
        activations: what is quantized in it.
        streams: under `quantized_of`, what it reads in the quantized network; under `float_of`, in
            the float one, where elements keep their float value; under `TARGET` its output there.
        threads: within an operator.
        importance: how much the elements of the output count, if not alike; broadcasts to it.
    """

    extracted: ir.Model
    block: Block
    weights: Mapping[str, tuple[F32, QTensor]]
    activations: Sequence[FakeActivation]
    streams: Sequence[Stream]
    threads: int = 1
    importance: F32 | None = None


def quantized_of(tensor: str) -> str:
    """Return under which name a stream has what a block reads in the quantized network."""
    return f"quantized::{tensor}"


def float_of(tensor: str) -> str:
    """Return under which name a stream has what a block reads in the float network."""
    return f"float::{tensor}"


def reconstruct(problem: Problem, descent: Descent, *, drop: float = 0.0) -> Reconstructed:
    """Return codes of the weights with which the block is nearest to the float one.

    Args:
        problem: the block.
        descent: how to find them.
        drop: with which probability an element of an activation keeps its float value.

    Raises:
        UnsupportedError: the block cannot be differentiated.
    """
    rng = np.random.default_rng([descent.seed, *problem.block.output.encode()])
    parts = [_Part(problem, stream, drop > 0) for stream in problem.streams]
    shares = np.asarray([len(part.stream) for part in parts], np.float64)
    nearest = {name: tensor for name, (_, tensor) in problem.weights.items()}
    before = _error(parts, nearest)
    if before == 0.0:
        return Reconstructed(nearest, before, before)
    soft = {name: SoftWeight(array, tensor) for name, (array, tensor) in problem.weights.items()}
    size = sum(weight.v.size for weight in soft.values())
    for i in range(descent.iterations):
        if i % _LOOK == 0 and all(weight.decided() for weight in soft.values()):
            break
        part = parts[int(rng.choice(len(parts), p=shares / shares.sum()))]
        gradients = part.gradients({n: w.values() for n, w in soft.items()}, rng, drop)
        rate, pressure, beta = descent.annealing.at(i / descent.iterations)
        for name, weight in soft.items():
            by_weight = gradients[name] / np.float32(before)
            weight.step(by_weight, rate=rate, pressure=pressure / size, beta=beta)
    found = {name: weight.rounded() for name, weight in soft.items()}
    after = _error(parts, found)
    if after >= before:
        return Reconstructed(nearest, before, before)
    return Reconstructed(found, before, after)


def _error(parts: Sequence[_Part], weights: Mapping[str, QTensor]) -> float:
    """Return the mean error over some batches of all streams."""
    arrays = {name: array for name, (array, _) in parts[0].problem.weights.items()}
    values = {n: tensor.dequantize().reshape(arrays[n].shape) for n, tensor in weights.items()}
    errors = [error for part in parts for error in part.errors(values)]
    return float(np.mean(errors))


class _Part:
    """The samples of equal shapes, and the block for them."""

    def __init__(self, problem: Problem, stream: Stream, drop: bool) -> None:
        self.problem = problem
        self.stream = stream
        self.names = problem.block.inputs
        self.drop = drop
        first = self._feed([0])
        shapes = values_in(problem.extracted, first).shapes
        values = sum(math.prod(shape) for shape in shapes.values())
        self.batch = max(1, min(_VALUES // max(values, 1), _MOST_BATCH, len(stream)))
        self.stacked = self.batch > 1 and self._can_be_stacked()
        rows = range(self.batch) if self.stacked else [0]
        self.graph: BlockGraph = quantized_block(
            problem.extracted,
            problem.block,
            tuple(problem.weights),
            problem.activations,
            self._feed(rows),
            self.stream.rows(TARGET, rows),
            drop=drop,
            importance=self._importance(),
        )
        self.outputs = list(self.graph.gradients.values())

    def _importance(self) -> F32 | None:
        """Return how much elements count, unless they are others than it was measured on."""
        by, shape = self.problem.importance, self.stream.arrays[TARGET].shape[1:]
        fits = by is not None and all(n in (1, m) for n, m in zip(by.shape, shape, strict=True))
        return by if fits else None

    @cached_property
    def training(self) -> Session:
        return open_session(self.graph.training, threads=self.problem.threads)

    def gradients(
        self, weights: Mapping[str, F32], rng: np.random.Generator, drop: float
    ) -> dict[str, F32]:
        """Return the gradients of the error of a random batch."""
        chosen = rng.choice(len(self.stream), self.batch, replace=False)
        total: dict[str, F32] = {}
        for rows in [chosen.tolist()] if self.stacked else [[int(i)] for i in chosen]:
            feed = self._whole(rows, weights, rng, drop)
            found = run(self.training, feed, self.outputs, where="a batch of a block")
            for name, gradient in zip(self.graph.gradients, found, strict=True):
                total[name] = total[name] + gradient if name in total else gradient
        if self.stacked:
            return total
        return {name: gradient / np.float32(self.batch) for name, gradient in total.items()}

    def errors(self, weights: Mapping[str, F32]) -> Iterator[float]:
        """Yield the errors of some batches, all of whose activations are quantized."""
        session = open_session(self.graph.forward, threads=self.problem.threads)
        each = self.batch if self.stacked else 1
        starts = range(0, len(self.stream) - each + 1, each)
        for start in starts[:: -(-len(starts) // _MEASURED)]:
            feed = self._whole(range(start, start + each), weights, None, 0.0)
            yield float(run(session, feed, [LOSS], where="a batch of a block")[0])

    def _whole(
        self,
        rows: Sequence[int],
        weights: Mapping[str, F32],
        rng: np.random.Generator | None,
        drop: float,
    ) -> dict[str, AnyArray]:
        feed = {input_of(n): a for n, a in self._feed(rows, rng, drop).items()}
        feed[TARGET] = self.stream.rows(TARGET, rows)
        for name, shape in self.graph.masks.items():
            feed[name] = np.ones(shape, bool) if rng is None else rng.random(shape) >= drop
        feed.update({self.graph.weights[n]: w for n, w in weights.items()})
        return feed

    def _feed(
        self, rows: Sequence[int], rng: np.random.Generator | None = None, drop: float = 0.0
    ) -> dict[str, AnyArray]:
        found = {}
        for name in self.names:
            array = self.stream.rows(quantized_of(name), rows)
            if drop and rng is not None and float_of(name) in self.stream.arrays:
                whole = self.stream.rows(float_of(name), rows)
                array = np.where(rng.random(array.shape) < drop, whole, array)
            found[name] = array
        return found

    def _can_be_stacked(self) -> bool:
        """Whether samples one behind the other give what they give one by one."""
        names = [v.name or "" for v in self.problem.extracted.graph.outputs]
        session = open_session(to_bytes(self.problem.extracted))

        def outputs(rows: Sequence[int]) -> AnyArray:
            feed = {input_of(n): a for n, a in self._feed(rows).items()}
            return run(session, feed, names, where="a batch of a block")[0]

        try:
            both = outputs([0, 1])
        except (DataError, ValueError):
            return False
        apart = np.concatenate([outputs([0]), outputs([1])])
        scale = float(np.abs(apart).max()) if apart.size else 0.0
        return both.shape == apart.shape and bool(np.abs(both - apart).max() <= _SAME * scale)
