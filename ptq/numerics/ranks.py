"""How alike two orders are: Spearman's rank correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptq.numerics.arrays import F64


def ranks(values: Sequence[float]) -> F64:
    """Return the rank of each value, 1 for the least; equal values share the mean of theirs."""
    _, place, counts = np.unique(
        np.asarray(values, np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    mean: F64 = (last - (counts - 1) / 2)[place]
    return mean


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the correlation of the ranks of two lists, -1..1; ``None`` if one has all alike.

    Reference: Spearman, "The proof and measurement of association between two things", American
    Journal of Psychology, 1904; with ties as Kendall has it, by mean ranks.

    Args:
        a: some values, none of them NaN.
        b: as many others.

    Raises:
        ValueError: there are not as many of both.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values cannot be paired with {len(b)}")
    first, second = (ranks(v) for v in (a, b))
    first, second = (v - v.mean() if v.size else v for v in (first, second))
    length = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / length if length else None
