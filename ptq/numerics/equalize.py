"""Factors of channels that make the ranges on either side of a tensor alike.

Reference: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, equations 8 to 11: the precision of channel i of a weight is its range over that of the
whole weight, the sum over channels of the product of both precisions is greatest where both ranges
are equal, and ``s = sqrt(r1 / r2)`` makes them so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

#: Rounds over all tensors, and the change of the natural logarithm that ends them.
_ROUNDS, _SETTLED = 50, 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Tied:
    """Tensors that are divided by the same factors.

    Attributes:
        makers: the layers in front of them, as indices.
        readers: the layers behind them.
        least: the least factor of each channel, in ``(0, 1]``; of 1 where it must not change.
    """

    makers: tuple[int, ...]
    readers: tuple[int, ...]
    least: Float64


def equalize(layers: Sequence[Float64], tied: Sequence[Tied]) -> list[Float64]:
    """Return the factors for each of the tied tensors, all positive.

    Each is visited in turn until no factor moves, since a layer lies between two tensors. A channel
    without a range on one side keeps its factor.

    Args:
        layers: magnitudes of weights, ``(group, outputs / group, inputs / group)``.
        tied: what lies between them.
    """
    layers = [layer.copy() for layer in layers]
    total = [np.ones(t.least.size) for t in tied]
    for _ in range(_ROUNDS):
        moved = 0.0
        for t, factors in zip(tied, total, strict=True):
            step = _step(layers, t, factors)
            factors *= step
            for i in t.makers:
                group = layers[i].shape[0]
                layers[i] /= step.reshape(group, -1, 1)
            for i in t.readers:
                group = layers[i].shape[0]
                layers[i] *= step.reshape(group, 1, -1)
            moved = max(moved, float(np.abs(np.log(step)).max(initial=0.0)))
        if moved < _SETTLED:
            break
    return total


def _step(layers: Sequence[Float64], tied: Tied, factors: Float64) -> Float64:
    """Return by what the factors change."""
    before = [layers[i].max(axis=2).reshape(-1) for i in tied.makers]
    behind = [layers[i].max(axis=1).reshape(-1) for i in tied.readers]
    log = (_log_mean(before) - _log_mean(behind)) / 2
    log[~np.isfinite(log)] = 0.0
    wanted = factors * np.exp(log)
    fixed = tied.least >= 1
    # one factor for all channels changes nothing of a precision: those that must stay set it
    if fixed.any():
        wanted /= np.exp(np.log(wanted[fixed]).mean())
        wanted[fixed] = 1.0
    step: Float64 = np.maximum(wanted, tied.least) / factors
    return step


def _log_mean(ranges: Sequence[Float64]) -> Float64:
    """Return the mean logarithm of the positive ranges of each channel; NaN where all are zero."""
    stacked = np.stack(ranges)
    there = stacked > 0
    with np.errstate(all="ignore"):
        mean: Float64 = np.where(there, np.log(stacked), 0.0).sum(axis=0) / there.sum(axis=0)
    return mean
