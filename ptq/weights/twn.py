"""Ternary weights: a magnitude for each channel, with either sign, or none."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ptq.numerics.arrays import F32, F64
from ptq.weights.codebook import Codebook, CodebookQuantizer, to_nearest

#: Threshold by the rule of the paper, as a share of the mean magnitude.
_RULE = 0.7


class TwnQuantizer(CodebookQuantizer, frozen=True, tag="twn"):
    """Minus, nothing or plus one magnitude, which with what is nothing has least squared error.

    With a threshold ``D``, the best magnitude is ``alpha = mean(|w| : |w| > D)``, and the error
    ``|w|^2 - S^2 / N`` with the sum ``S`` and the number ``N`` of magnitudes above ``D``. Sorted,
    they give the least of it over all thresholds in one pass, which the paper leaves to a rule.

    Attributes:
        threshold: ``exact``, or by the ``rule`` of the paper, ``D = 0.7 mean |w|``, which is near
            the best if weights are Gauss or uniformly distributed.
    """

    paper: ClassVar[str] = (
        "Li et al., Ternary Weight Networks, arXiv:1605.04711, 2016, section 2.2; with the exact "
        "minimum in place of the rule"
    )
    good_for: ClassVar[str] = (
        "ternary weights, for hardware that has them or to train from; by itself it "
        "ruins most networks"
    )
    least_bits: ClassVar[int] = 2
    most_bits: ClassVar[int] = 2

    threshold: Literal["exact", "rule"] = "exact"

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return minus the magnitude of each row, 0, and plus it."""
        magnitudes = np.abs(rows)
        if self.threshold == "exact":
            alpha = best_magnitude(magnitudes)
            return to_nearest(rows, _ternary(alpha), alpha)
        total = magnitudes.astype(np.float64, order="C").sum(axis=1, keepdims=True)
        limit = _RULE * total / max(rows.shape[1], 1)
        alpha = mean_above(magnitudes, limit)
        index = 1 + (rows > limit).astype(np.intp) - (rows < -limit)
        return Codebook(_ternary(alpha), index, alpha)


def best_magnitude(magnitudes: F32) -> F64:
    """Return the one magnitude of each row that, beside 0, has the least squared error.

    Args:
        magnitudes: at least 0, shape ``(rows, values)``.

    Returns:
        float64, shape ``(rows,)``; 0 for rows of zeros.
    """
    count = magnitudes.shape[1]
    if not count:
        return np.zeros(len(magnitudes))
    falling = np.sort(np.array(magnitudes, order="C"), axis=1)[:, ::-1]
    sums = np.cumsum(falling, axis=1, dtype=np.float64)
    kept = np.arange(1, count + 1)
    best = np.argmax(sums**2 / kept, axis=1)
    return np.asarray(sums[np.arange(len(sums)), best] / kept[best])


def mean_above(magnitudes: F32, limits: F64) -> F64:
    """Return the mean of what is above a limit in each row, 0 where nothing is.

    Args:
        magnitudes: shape ``(rows, values)``.
        limits: shape ``(rows, 1)``.
    """
    above = magnitudes > limits
    kept = np.where(above, magnitudes, np.float32(0)).astype(np.float64, order="C")
    total = kept.sum(axis=1)
    return np.asarray(total / np.maximum(above.sum(axis=1), 1))


def _ternary(alpha: F64) -> F64:
    return np.stack([-alpha, np.zeros_like(alpha), alpha], axis=1)
