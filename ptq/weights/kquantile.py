"""Levels that stand for equally many weights each."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ptq.numerics.arrays import F32, F64, I64, AnyArray
from ptq.numerics.ordered import Ordered
from ptq.weights.codebook import Codebook, CodebookQuantizer, in_order


class KquantileQuantizer(CodebookQuantizer, frozen=True, tag="kquantile"):
    """Thresholds between equally many weights each, and the mean of what lies between for a level.

    The ``i``-th of ``2^b - 1`` thresholds is the quantile ``i / 2^b`` of the channel. Each level
    serves equally many weights, give or take one, and more only where weights are equal.

    Attributes:
        level: ``mean``, which for these thresholds has the least squared error, or ``median``, as
            in the paper.
    """

    paper: ClassVar[str] = (
        "Baskin et al., UNIQ: Uniform Noise Injection for Non-Uniform Quantization of Neural "
        "Networks, arXiv:1804.10969, 2018 (k-quantile quantization, without its training); Liss "
        "et al., Efficient non-uniform quantizer for quantized neural network targeting "
        "reconfigurable hardware, arXiv:1811.10869, 2018 (levels on one grid of integers)"
    )
    good_for: ClassVar[str] = (
        "kernels of few weights: depthwise ones are exact from 4 bits on; else lq is nearer"
    )
    free_levels: ClassVar[bool] = True

    level: Literal["mean", "median"] = "mean"

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the level of each part of a row, and the part that each weight is in."""
        values = Ordered.of(rows)
        limits, cuts = equal_parts(values, 1 << bits)
        counts, sums = values.runs(cuts)
        means = self.level == "mean"
        levels = sums / np.maximum(counts, 1) if means else _medians(values, cuts)
        # parts of equal weights leave others empty: those get the level of the largest part
        usual = np.take_along_axis(levels, counts.argmax(axis=1)[:, None], axis=1)
        return in_order(np.where(counts > 0, levels, usual), part_of(rows, limits))


def equal_parts(values: Ordered, count: int) -> tuple[F64, I64]:
    """Return limits between parts of each row with equally many values, give or take one.

    Args:
        values: the rows.
        count: how many parts. Equal values are in one part, so that others may be empty.

    Returns:
        The largest value of each part but the last, shape ``(rows, count - 1)``; and how many
        values are not above it, same shape.
    """
    if not values.size:
        nothing = np.zeros((len(values.rows), count - 1))
        return nothing, nothing.astype(np.int64)
    cuts = np.arange(1, count) * values.size // count
    limits = np.where(cuts > 0, values.values[:, np.maximum(cuts - 1, 0)], -np.inf)
    return limits, values.up_to(limits)


def part_of(rows: F32, limits: F64) -> AnyArray:
    """Return the index of the part that each value is in, in the shape of ``rows``."""
    index = np.zeros(rows.shape, np.intp)
    for i in range(limits.shape[1]):
        index += rows > limits[:, i, None]
    return index


def _medians(values: Ordered, cuts: I64) -> F64:
    """Return the median of each part, shape ``(rows, cuts + 1)``; any value for an empty one."""
    if not values.size:
        return np.zeros((len(cuts), cuts.shape[1] + 1))
    ends = np.pad(cuts, ((0, 0), (1, 1)))
    ends[:, -1] = values.size
    twice = ends[:, :-1] + ends[:, 1:] - 1
    low, high = (
        np.take_along_axis(values.values, np.clip(middle, 0, values.size - 1), axis=1)
        for middle in (twice // 2, (twice + 1) // 2)
    )
    return np.asarray((low + high) / 2)
