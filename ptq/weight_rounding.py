"""Round weights in blocks by what their layers read, in the order of the network.

Activations stay in float, so that a layer's weight is all that its output suffers from, beside the
weights before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ptq.data.feeds import Feed
from ptq.graph.biases import add_to_biases
from ptq.graph.types import Model
from ptq.graph.weight_layers import WeightLayer, find_weight_layers, tap_layers, with_weights
from ptq.numerics.affine import QParams, QTensor, per_element
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.block_tensor import keeps_scales, offset_of, spread, with_codes
from ptq.numerics.blocks import BlockFormat, quantize_blocks
from ptq.numerics.gptq import Grid
from ptq.numerics.solutions import DAMPINGS, Solution
from ptq.rounders import Rounder, Task
from ptq.runtime.grams import grams
from ptq.stats.gram import Gram

#: How a weight is quantized to nearest.
QuantizeWeight = Callable[[AnyArray, BlockFormat], QTensor]

#: How many times the network is run on the feeds at most. Each time the layers that have as many
#: others before them are rounded, so that all read what those before make of their input.
_PASSES = 64

#: Layers with more inputs for each output are left as they are; as in `ptq.rounding`.
_MOST_COLUMNS = 4608

#: About how many bytes the sums of the layers of one pass may take.
_MEMORY = 512 << 20


@dataclass(frozen=True, slots=True, eq=False)
class RoundedWeights:
    """What was found.

    Attributes:
        weights: codes and scales, as they are written, by name of the weight.
        shifts: what to add to biases, by node.
    """

    weights: Mapping[str, QTensor]
    shifts: Mapping[str, F64]

    def quantize(
        self,
        name: str,
        array: AnyArray,
        layout: BlockFormat,
        nearest: QuantizeWeight = quantize_blocks,
    ) -> QTensor:
        """Return a weight as it was found if it is written in such blocks, else to nearest."""
        found = self.weights.get(name)
        if found is not None and _is_written(found, array, layout):
            return found
        return nearest(array, layout)


class WeightRounder:
    """Rounds the weights of one model, which are written in blocks.

    Args:
        model: the float model.
        folder: where its external data lies.
        written: its weights as they are written, rounded to nearest, by name; others stay float.
        threads: within an operator.
    """

    def __init__(
        self, model: Model, folder: Path, written: Mapping[str, QTensor], threads: int = 1
    ) -> None:
        self.model = model
        self.folder = folder
        self.written = written
        self.threads = threads
        layers = [y for y in find_weight_layers(model) if y.weight in written]
        self.layers = tuple(layers)

    def simulated(self, found: RoundedWeights) -> Model:
        """Return the float model with what the codes of weights stand for, and shifted biases."""
        tensors = {**self.written, **found.weights}
        model = with_weights(self.model, {n: t.dequantize() for n, t in tensors.items()})
        add_to_biases(model, found.shifts)
        return model

    def passes(self) -> int:
        """Return how many times `round` runs the network on the feeds."""
        return sum(1 for _ in self._parts())

    def round(
        self,
        method: Rounder,
        feeds: Sequence[Feed],
        *,
        biases: bool,
        on_feed: Callable[[], None] = lambda: None,
    ) -> RoundedWeights:
        """Return weights with which the output of each layer changes least.

        Rows of weights that come out worse than rounded to nearest stay as they are written. Left
        out are weights that other operators read as well, and layers with very many inputs.

        Args:
            method: how weights are rounded.
            feeds: the data.
            biases: whether biases take the mean of what is lost; weights are rounded for the rest.
            on_feed: called after each feed of each of the `passes`.

        Raises:
            DataError: onnxruntime fails on a feed.
        """
        weights: dict[str, QTensor] = {}
        shifts: dict[str, F64] = {}
        for part in self._parts():
            model = self.simulated(RoundedWeights(weights, shifts))
            found = grams(
                tap_layers(model, part), feeds, self.folder, threads=self.threads, on_feed=on_feed
            )
            for sharing in _by_weight(part):
                first = sharing[0]
                corrected = biases and all(layer.takes_bias for layer in sharing)
                halves = _added([found[layer.key] for layer in sharing])
                moments = [g.centred if corrected else g.total for g in halves]
                tensor = _rounded(method, first, self.written[first.weight], moments[0], moments[1])
                weights[first.weight] = tensor
                if not corrected:
                    continue
                lost = _problem_rows(first, first.array - _values(tensor, first))
                for layer in sharing:
                    one, other = found[layer.key]
                    mean = (one + other).mean
                    shifts[layer.node] = np.einsum("grc,gc->gr", lost, mean).reshape(-1)
        return RoundedWeights(weights, shifts)

    def _parts(self) -> Iterator[list[WeightLayer]]:
        """Yield the layers of each pass, the first ones first; those of one weight are together."""
        groups = [s for s in _by_weight(self.layers) if _can_be_rounded(s)]
        groups.sort(key=lambda sharing: sharing[0].level)
        levels = len({sharing[0].level for sharing in groups})
        each = -(-levels // _PASSES)
        part: list[WeightLayer] = []
        begun: set[int] = set()
        size = 0
        for sharing in groups:
            level, needed = sharing[0].level, _gram_bytes(sharing[0]) * len(sharing)
            if part and (len(begun | {level}) > each or size + needed > _MEMORY):
                yield part
                part, begun, size = [], set(), 0
            part += sharing
            begun.add(level)
            size += needed
        if part:
            yield part


def _is_written(tensor: QTensor, array: AnyArray, layout: BlockFormat) -> bool:
    params = tensor.qparams
    blocks = params.axis, params.block_size, tensor.bits
    alike = blocks == (layout.axis, layout.block_size, layout.qtype.bits)
    return alike and tensor.codes.shape == array.shape


def _by_weight(layers: Sequence[WeightLayer]) -> list[list[WeightLayer]]:
    found: dict[str, list[WeightLayer]] = {}
    for layer in layers:
        found.setdefault(layer.weight, []).append(layer)
    return list(found.values())


def _can_be_rounded(sharing: Sequence[WeightLayer]) -> bool:
    first = sharing[0]
    alike = len({(layer.axis, layer.groups) for layer in sharing}) == 1
    return alike and len(sharing) == first.readers and first.columns <= _MOST_COLUMNS


def _gram_bytes(layer: WeightLayer) -> int:
    return 2 * 8 * layer.groups * layer.columns**2


def _added(halves: Sequence[tuple[Gram, Gram]]) -> tuple[Gram, Gram]:
    first, second = halves[0]
    for one, other in halves[1:]:
        first, second = first + one, second + other
    return first, second


def _rounded(
    method: Rounder, layer: WeightLayer, written: QTensor, first: F64, second: F64
) -> QTensor:
    """Return a weight rounded with what does best on the other half of the data."""
    w = _problem_rows(layer, layer.array).astype(np.float64)
    nearest = Solution(
        _problem_rows(layer, written.codes.reshape(layer.array.shape)).astype(np.float64),
        _grid(layer, written),
    )
    block = None if keeps_scales(written) else _block(layer, written.qparams)
    tried = {
        (damping, polished): found
        for damping in DAMPINGS
        for polished, found in enumerate(method.solutions(Task(w, nearest, first, damping, block)))
    }
    damping, polished = min(tried, key=lambda t: float(tried[t].errors(w, second).sum()))
    whole = first + second
    solved = method.solutions(Task(w, nearest, whole, damping, block))
    found = next(islice(solved, polished, None))
    better = (found.errors(w, whole) < nearest.errors(w, whole))[:, :, None]
    codes = np.where(better, found.codes, nearest.codes)
    scale = np.where(better, found.grid.scale, nearest.grid.scale)
    return _as_written(layer, codes, scale, written)


# -- how a weight is written, and how it is seen as a stack of matrices ---------------------------


def _problem_rows(layer: WeightLayer, array: AnyArray) -> AnyArray:
    """Return an array of the shape of the weight as ``(groups, rows, columns)``."""
    front = np.moveaxis(array, layer.axis, 0)
    return front.reshape(layer.groups, -1, layer.columns)


def _values(tensor: QTensor, layer: WeightLayer) -> F32:
    return tensor.dequantize().reshape(layer.array.shape)


def _grid(layer: WeightLayer, written: QTensor) -> Grid:
    params = written.qparams
    matrix = _matrix_shape(layer, params)
    scale, zero_point = (p.astype(np.float64) for p in per_element(params, matrix))
    if (offset := offset_of(written)) is not None:
        # s (q - z) + m is s (q - (z - m / s)): a zero point that is no integer
        zero_point = zero_point - spread(offset, params, matrix) / scale
    scale, zero_point = (
        _problem_rows(layer, np.broadcast_to(p, matrix).reshape(layer.array.shape))
        for p in (scale, zero_point)
    )
    bound = np.empty((0, layer.columns), np.int64)
    qtype, levels = params.qtype, None
    if written.levels is not None:  # one table for all blocks
        table = written.levels.reshape(-1, written.levels.shape[-1])[0].astype(np.float64)
        levels = np.broadcast_to(table, (*scale.shape[:2], len(table)))
    return Grid(scale, zero_point, qtype.qmin, qtype.qmax, bound, qtype.qmax, levels)


def _matrix_shape(layer: WeightLayer, params: QParams) -> tuple[int, int]:
    """Return the shape of the codes: a matrix, of a convolution with a row for each channel."""
    shape = layer.array.shape
    return (shape[0], layer.array.size // shape[0]) if layer.window else (shape[0], shape[1])


def _block(layer: WeightLayer, params: QParams) -> int | None:
    """Return how many columns share a scale; ``None`` if it is rows that do."""
    return params.block_size if params.axis != layer.axis else None


def _as_written(layer: WeightLayer, codes: F64, scale: F64, old: QTensor) -> QTensor:
    params = old.qparams
    assert params.axis is not None and params.block_size is not None

    def matrix(stack: F64) -> F64:
        shape = layer.array.shape
        inner = [n for a, n in enumerate(shape) if a != layer.axis]
        front = stack.reshape(shape[layer.axis], *inner)
        return np.moveaxis(front, 0, layer.axis).reshape(old.codes.shape)

    starts = np.arange(params.scale.shape[params.axis]) * params.block_size
    scales = np.take(matrix(scale), starts, axis=params.axis).astype(np.float32)
    return with_codes(old, np.ascontiguousarray(matrix(codes)).astype(old.codes.dtype), scales)
