"""Reconstruct a network block by block, each on what it reads in the network quantized so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import UnsupportedError, VerificationError
from ptq.graph.cut import Tapped
from ptq.graph.passes.edit import constant, is_op
from ptq.graph.site import Site, Sites
from ptq.graph.site_weights import unsaturated
from ptq.graph.types import Model
from ptq.graph.weight_layers import WeightLayer
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F32, AnyArray
from ptq.runtime.session import Session, open_session, run
from ptq.train.block_graph import TARGET, FakeActivation, extract
from ptq.train.block_taps import tap_inputs, tap_output
from ptq.train.blocks import Block, find_blocks, find_layers
from ptq.train.importance import channel_importance
from ptq.train.reconstruct import Descent, Problem, float_of, quantized_of, reconstruct
from ptq.train.streams import streamed

#: How blocks are reconstructed: layer by layer; block by block; with activations quantized at
#: random.
Reconstruction = Literal["adaround", "brecq", "qdrop"]

#: No more of what a block reads and puts out is kept on disk, in bytes; fewer samples have to do.
_MOST_BYTES = 1 << 30

#: With which probability an element of an activation keeps its float value (QDrop, section 5).
_DROP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer whose weight is to be found.

    Attributes:
        node: its name.
        weight: the name of the weight.
        array: the weight.
        sharing: names of all operators that read the weight.
        settle: makes codes such that no kernel saturates.
    """

    node: str
    weight: str
    array: F32
    sharing: frozenset[str]
    settle: Callable[[QTensor], QTensor] = lambda tensor: tensor


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What is reconstructed.

    Attributes:
        model: the float network.
        folder: where its external data lies.
        layers: those whose weights are to be found.
        activations: what is quantized.
        emit: returns the quantized network and its weights, given those that were found.
    """

    model: Model
    folder: Path
    layers: Sequence[Layer]
    activations: Sequence[FakeActivation]
    emit: Callable[[Mapping[str, QTensor]], tuple[Model, Mapping[str, QTensor]]]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What reconstruction found.

    Attributes:
        weights: codes, by name of the weight.
        left: the layers that keep what they have, with the reason.
    """

    weights: dict[str, QTensor] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def layers_of(sites: Sites) -> tuple[Layer, ...]:
    """Return the layers of a network that becomes integer."""
    found = (_layer(site) for site in sites.sites if site.rule.role == "linear")
    return tuple(layer for layer in found if layer is not None)


def _layer(site: Site) -> Layer | None:
    array = constant(site.weight)
    if site.weight is None or array is None or not array.size:
        return None
    sharing = frozenset(user.name or "" for user, _ in site.weight.uses())
    settle = partial(unsaturated, site, array)
    return Layer(site.name, site.weight.name or "", array, sharing, settle)


def dense_layers(model: Model, layers: Sequence[WeightLayer]) -> tuple[Layer, ...]:
    """Return the layers of a network of which only weights are quantized, but recurrent ones."""
    readers: dict[str, set[str]] = {}
    for node in model.graph:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(value.name or "", set()).add(node.name or "")
    recurrent = {n.name for n in model.graph if is_op(n, "GRU", "LSTM", "RNN")}
    return tuple(
        Layer(y.node, y.weight, y.array, frozenset(readers[y.weight]))
        for y in layers
        if y.node not in recurrent
    )


@dataclass(frozen=True, slots=True, eq=False)
class Reconstructor:
    """Finds weights with which the blocks of a network put out what they do in float.

    Attributes:
        network: what is reconstructed.
        how: what a block is, and what is quantized in it.
        feeds: the data.
        descent: how weights are found.
        threads: within an operator.
    """

    network: Network
    how: Reconstruction
    feeds: Sequence[Feed]
    descent: Descent
    threads: int = 1

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks that are reconstructed, in order."""
        names = frozenset(layer.node for layer in self.network.layers)
        find = find_layers if self.how == "adaround" else find_blocks
        return find(self.network.model.graph, names)

    def run(self, on_block: Callable[[], None] = lambda: None) -> Found:
        """Return the weights, of the first blocks first: the others read what those make.

        Args:
            on_block: called after each of the `blocks`.

        Raises:
            DataError: onnxruntime fails on a feed.
        """
        found = Found()
        blocks = self.blocks()
        importance = self._importance(blocks)
        by_node = {layer.node: layer for layer in self.network.layers}
        for block in blocks:
            layers = []
            for layer in (by_node[name] for name in block.layers):
                if layer.sharing <= set(block.nodes):
                    layers.append(layer)
                else:
                    found.left[layer.node] = "layers elsewhere share its weight"
            try:
                if layers:
                    by = importance.get(block.output)
                    found.weights.update(self._solved(block, layers, found.weights, by))
            except (UnsupportedError, VerificationError) as error:
                found.left.update({layer.node: str(error) for layer in layers})
            on_block()
        return found

    def _importance(self, blocks: Sequence[Block]) -> dict[str, F32]:
        """Return how much the channels of outputs count, of blocks of several layers."""
        if self.how == "adaround" or not blocks:
            return {}
        network = self.network
        return channel_importance(
            network.model, blocks, self.feeds, network.folder,
            seed=self.descent.seed, threads=self.threads,
        )  # fmt: skip

    def _solved(
        self,
        block: Block,
        layers: Sequence[Layer],
        found: Mapping[str, QTensor],
        importance: F32 | None,
    ) -> dict[str, QTensor]:
        network, drops = self.network, self.how == "qdrop"
        quantized, written = network.emit(found)
        quantized_side = tap_inputs(network.model, quantized, block)
        float_side = tap_output(network.model, block, inputs=drops)
        with streamed(self._samples(block, quantized_side, float_side), _MOST_BYTES) as streams:
            first = {n: np.array(streams[0].arrays[quantized_of(n)][0]) for n in block.inputs}
            problem = Problem(
                extract(network.model, block, first),
                block,
                {y.weight: (y.array, written[y.weight]) for y in layers},
                network.activations,
                streams,
                self.threads,
                importance,
            )
            weights = reconstruct(problem, self.descent, drop=_DROP if drops else 0.0).weights
        return {layer.weight: layer.settle(weights[layer.weight]) for layer in layers}

    def _samples(
        self, block: Block, quantized: Tapped, floats: Tapped
    ) -> Iterator[dict[str, AnyArray]]:
        """Yield what a block reads and is to put out, feed by feed."""
        sessions = [
            open_session(tapped.model, threads=self.threads, folder=self.network.folder)
            for tapped in (quantized, floats)
        ]
        for feed in self.feeds:
            read = _outputs(sessions[0], quantized, feed)
            sample = {quantized_of(name): array for name, array in read.items()}
            for name, array in _outputs(sessions[1], floats, feed).items():
                sample[TARGET if name == block.output else float_of(name)] = array
            yield sample


def _outputs(session: Session, tapped: Tapped, feed: Feed) -> dict[str, AnyArray]:
    names = list(tapped.outputs.values())
    given = {name: feed[tensor] for name, tensor in tapped.inputs.items()}
    found = run(session, given, names, where="a calibration sample")
    return dict(zip(tapped.outputs, found, strict=True))
