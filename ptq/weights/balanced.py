"""Evenly spaced levels that stand for equally many weights each."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32, F64
from ptq.numerics.ordered import Ordered
from ptq.weights.codebook import Codebook, CodebookQuantizer
from ptq.weights.kquantile import equal_parts, part_of


class BalancedQuantizer(CodebookQuantizer, frozen=True, tag="balanced"):
    """Evenly spaced levels, each of which serves equally many weights: all codes tell as much.

    Weights are cut at their median, the halves at theirs, and so on: the ``k``-th of ``2^b`` parts
    gets the level ``c + a k``. The paper spreads the levels over the range of the weights (and
    takes means for medians, which is cheaper while one trains); here ``a`` and ``c`` are those of
    least squares. The codes have as much entropy as they can have, and the weights a large error.
    """

    paper: ClassVar[str] = (
        "Zhou et al., Balanced Quantization: An Effective and Efficient Approach to Quantized "
        "Neural Networks, Journal of Computer Science and Technology 32, 2017, section 3"
    )
    good_for: ClassVar[str] = (
        "codes that all tell equally much, for study; at any width the weights suffer"
    )

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and the part of the row that each weight is in."""
        values = Ordered.of(rows)
        limits, cuts = equal_parts(values, 1 << bits)
        return Codebook(_line(*values.runs(cuts)), part_of(rows, limits))


def _line(counts: F64, sums: F64) -> F64:
    """Return the levels of least squares that are evenly spaced, shape ``(rows, parts)``.

    Args:
        counts: of the values of each part.
        sums: of them.
    """
    parts = np.arange(counts.shape[1])
    size = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mean = sums.sum(axis=1, keepdims=True) / size
    away = parts - (counts * parts).sum(axis=1, keepdims=True) / size
    spread = (counts * away**2).sum(axis=1, keepdims=True)
    slope = (sums * away).sum(axis=1, keepdims=True) / np.where(spread > 0, spread, 1)
    return np.asarray(mean + np.maximum(slope, 0) * away)
