"""Find channels with outliers that are worth computing with more than once (channel splitting).

Reference: Zhao et al., "Improving Neural Network Quantization without Retraining using Outlier
Channel Splitting", ICML 2019, section 3.4: the channel that reaches furthest is split, again and
again. Departs from it by splitting a channel into equal shares, and only where that pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from ptq.config import QuantizeConfig
from ptq.data import Dataset
from ptq.graph.rescale.linear import Float64
from ptq.graph.rescale.smooth import Smoothable
from ptq.graph.rescale.split import Counts, copied, encode_counts
from ptq.numerics.arrays import F32
from ptq.progress import Stages
from ptq.runtime.channels import ChannelExtremes
from ptq.smoothing import Rounding, for_dense_layers
from ptq.source import Source

#: Copies that are tried, as shares of a tensor's channels; the paper has 1 to 5 %.
_SHARES = (0.02, 0.05)

#: The Mul and the copies cost time: they must take away this share of the error (1 dB).
_WORTH = 0.2

#: Copies of one channel, at most.
_MOST = 255


def split_channels(
    source: Source, data: Dataset, config: QuantizeConfig, stages: Stages, *, threads: int
) -> dict[str, str]:
    """Return the copies of channels of tensors that dense layers read, where the error is less.

    Args:
        source: the model.
        data: the calibration data: all of it for the extremes of channels, a few for errors.
        config: how values are quantized.
        stages: told of what takes time.
        threads: threads within an operator.

    Raises:
        CalibrationError: there is no sample, or a tensor is not finite.
    """
    rounding = Rounding.of(config)

    def choose(tensor: Smoothable, seen: ChannelExtremes, rows: F32) -> str | None:
        counts = _best(tensor, seen, rows, rounding)
        return None if counts is None else encode_counts(counts)

    return for_dense_layers(source, data, stages, choose, stage="split", threads=threads)


def copies(lo: Float64, hi: Float64, more: int) -> Counts:
    """Return how many copies of each channel make the range of them all least, greedily.

    Args:
        lo: the least value of each channel; what is above 0 counts as 0.
        hi: the greatest; what is below 0 counts as 0.
        more: how many copies are added at most; fewer where the last do not make the range less.
    """
    lo, hi = np.minimum(lo, 0.0), np.maximum(hi, 0.0)
    found = counts = np.ones(lo.size, np.int64)
    for _ in range(more):
        ends = [int(np.argmax(hi / counts)), int(np.argmin(lo / counts))]
        tried = [counts + (np.arange(lo.size) == end) for end in ends]
        counts = min(tried, key=lambda each: _width(lo, hi, each))
        if counts.max() > _MOST:
            break
        if _width(lo, hi, counts) < _width(lo, hi, found):  # not yet where others reach as far
            found = counts
    return found


def _width(lo: Float64, hi: Float64, counts: Counts) -> float:
    return float((hi / counts).max() - (lo / counts).min())


def _best(
    tensor: Smoothable, seen: ChannelExtremes, rows: F32, rounding: Rounding
) -> Counts | None:
    """Return the copies of the least error, or ``None`` if none are worth it."""
    weights: Sequence[F32] = [reader.matrix() for reader in tensor.readers]
    tried = [copies(seen.lo, seen.hi, ceil(share * tensor.channels)) for share in _SHARES]
    errors = []
    for counts in tried:
        index = np.concatenate([np.arange(counts.size), copied(counts)])
        split: F32 = (rows / counts).astype(np.float32)[:, index]
        errors.append(rounding.error(split, [weight[index] for weight in weights]))
    best = int(np.argmin(errors))
    return tried[best] if errors[best] < (1 - _WORTH) * rounding.error(rows, weights) else None
