"""Find factors that spare the weights that matter most from rounding (AWQ).

Reference: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and
Acceleration", MLSys 2024, section 3.2, equations 4 and 5. Departs from it by taking root mean
squares of channels for their mean magnitudes, and by measuring the error of products with the
inputs' second moments, so that no candidate is run, on some of the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from ptq.block_methods import BlockQuantizer
from ptq.config import QuantizeConfig
from ptq.data import Dataset
from ptq.data.dataset import evenly_spaced
from ptq.graph.rescale.apply import decode, encode
from ptq.graph.rescale.linear import Float64
from ptq.graph.rescale.smooth import Smoothable, find_smoothable
from ptq.graph.weight_layers import tap_rows
from ptq.numerics.arrays import F32, AnyArray
from ptq.numerics.blocks import BlockFormat
from ptq.numerics.qtype import QType
from ptq.progress import Stages
from ptq.runtime.grams import grams
from ptq.source import Source
from ptq.stats.gram import Gram

#: Powers of the size of a channel that are tried; with 0 nothing changes.
_STRENGTHS = tuple(i / 10 for i in range(1, 10))

#: Of each weight, so many outputs are tried: those of one layer are much alike.
_OUTPUTS = 128

#: Samples on which second moments are taken.
_SAMPLES = 32

#: A Mul costs time: it must take away this share of the error at least (1 dB).
_WORTH = 0.2

#: Tensors of more channels are left as they are, as in `ptq.weight_rounding`.
_MOST_CHANNELS = 4608

#: About how many bytes the sums of one pass may take.
_MEMORY = 512 << 20


def awq_factors(
    source: Source, data: Dataset, config: QuantizeConfig, stages: Stages, *, threads: int
) -> dict[str, str]:
    """Return the factors of tensors that dense layers read, where they make the error less.

    Args:
        source: the model.
        data: what second moments are taken on.
        config: in what blocks weights are rounded.
        stages: told of what takes time.
        threads: threads within an operator.

    Raises:
        DataError: onnxruntime fails on a feed.
    """
    layout = BlockFormat(
        QType(config.bits, signed=False), 0, config.block, config.weights_symmetric
    )
    method = config.block_quantizer()
    feeds = list(islice(iter(data), _SAMPLES))
    parts = list(_parts(find_smoothable(source.model)))
    found = {}
    with stages.stage("moments", len(parts) * len(feeds)) as step:
        for part in parts:
            tapped = tap_rows(source.model, [tensor.name for tensor in part])
            sums = grams(tapped, feeds, source.folder, threads=threads, on_feed=step)
            for tensor in part:
                first, second = sums[tensor.name]
                factors = _best(tensor, first + second, method, layout)
                if factors is not None:
                    found[tensor.name] = factors
    return found


def protecting(sizes: Float64, strength: float) -> Float64:
    """Return ``sizes^strength``, scaled so that its extremes are one over the other.

    A tensor is divided by it, and weights are multiplied: by more where channels are larger.

    Args:
        sizes: of the channels of the tensor. One that is always 0 has that of the smallest other.
        strength: 0 changes nothing.
    """
    used = sizes > 0
    if not used.any():
        return np.ones(sizes.size)
    scale = np.where(used, sizes, sizes[used].min()) ** strength
    balanced: Float64 = scale / np.sqrt(scale.max() * scale.min())
    return balanced


def _parts(tensors: Sequence[Smoothable]) -> Iterator[list[Smoothable]]:
    part: list[Smoothable] = []
    size = 0
    for tensor in tensors:
        needed = 2 * 8 * tensor.channels**2
        if tensor.channels > _MOST_CHANNELS:
            continue
        if part and size + needed > _MEMORY:
            yield part
            part, size = [], 0
        part.append(tensor)
        size += needed
    if part:
        yield part


def _best(
    tensor: Smoothable, gram: Gram, method: BlockQuantizer, layout: BlockFormat
) -> str | None:
    """Return the factors of the least error, or ``None`` if none are worth it."""
    weights = [_some(reader.matrix()) for reader in tensor.readers]
    sizes = np.sqrt(np.diagonal(gram.total[0]) / max(gram.count, 1))
    signals = [_power(weight, gram) or 1.0 for weight in weights]

    def error(scale: F32) -> float:
        """Return the squared error of products, relative to the signal of each, summed."""
        total = 0.0
        for weight, signal in zip(weights, signals, strict=True):
            rounded = method.quantize(weight * scale, layout).dequantize() / scale
            total += _power(rounded - weight, gram) / signal
        return total

    tried = [encode(protecting(sizes, strength)) for strength in _STRENGTHS]
    plain = error(np.ones((len(sizes), 1), np.float32))
    errors = [error(decode(text).astype(np.float32)[:, None]) for text in tried]
    best = int(np.argmin(errors))
    worth = 0.0 if tensor.folds else _WORTH
    return tried[best] if errors[best] < (1 - worth) * plain else None


def _some(weight: AnyArray) -> F32:
    every = evenly_spaced(weight.shape[1], _OUTPUTS)
    return np.ascontiguousarray(weight[:, list(every)], np.float32)


def _power(weight: F32, gram: Gram) -> float:
    """Return the squared sum of what a weight ``(inputs, outputs)`` makes of the inputs."""
    wide = weight.astype(np.float64)
    return float(np.einsum("io,io->", wide, gram.total[0] @ wide))
