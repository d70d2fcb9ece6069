"""k-means of numbers: the levels of least squared error, found by Lloyd's iteration.

Numbers are sorted, and so each cluster is a stretch of them: a step costs a search for the
boundaries and differences of running sums, not a pass over all numbers for each level.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.sorted_rows import count_below, running_sums

Init = Literal["split", "linear"]

#: Lloyd's iteration ends by itself, after some ten steps as a rule.
_STEPS = 300

#: The same for the cut of one cluster in two, which is only to start from.
_CUT_STEPS = 4

#: Numbers that are worked on together: a few arrays of 8 MB.
_AT_ONCE = 1 << 20


def k_means(rows: F64, count: int, init: Init) -> F64:
    """Return levels of each row, ascending, no step of Lloyd's iteration changing them.

    Args:
        rows: sorted, shape ``(rows, n)``.
        count: how many levels, 1 or more.
        init: where the iteration starts: at evenly spaced levels from the least to the largest
            value (``linear``), or from one cluster, of which always the one is cut in two that
            spares the most error (``split``).

    Returns:
        Shape ``(rows, count)``; some equal ones where there are fewer distinct values. Without
        values, zeros.
    """
    found = np.zeros((len(rows), count))
    n = rows.shape[1]
    chunk = max(1, _AT_ONCE // max(n, 16 * count))
    for start in range(0, len(rows) if n else 0, chunk):
        part = slice(start, start + chunk)
        found[part] = _k_means(rows[part], count, init)
    return found


def _k_means(rows: F64, count: int, init: Init) -> F64:
    sums = running_sums(rows)
    levels = _linear(rows, count) if init == "linear" else _split(rows, sums, count)
    active, cuts = np.arange(len(rows)), _cuts(rows, levels)
    for _ in range(_STEPS):
        levels[active] = _means(sums[active], cuts, levels[active])
        moved = _cuts(rows[active], levels[active])
        changed = np.any(moved != cuts, axis=1)
        active, cuts = active[changed], moved[changed]
        if not active.size:
            break
    # the mean of equal numbers can be off by a rounding, and then not between its neighbours
    return np.sort(np.clip(levels, rows[:, :1], rows[:, -1:]), axis=1)


def _cuts(rows: F64, levels: F64) -> AnyArray:
    """Return where the values of each level begin, and the end of the last one."""
    inner = count_below(rows, (levels[:, 1:] + levels[:, :-1]) / 2, equal=True)
    ends = np.broadcast_to([0, rows.shape[1]], (len(rows), 2))
    return np.concatenate([ends[:, :1], inner, ends[:, 1:]], axis=1)


def _means(sums: F64, cuts: AnyArray, levels: F64) -> F64:
    """Return the mean of the values of each level; the level itself where it has none."""
    sizes, totals = np.diff(cuts, axis=1), np.diff(np.take_along_axis(sums, cuts, 1), axis=1)
    return np.where(sizes > 0, totals / np.maximum(sizes, 1), levels)


def _linear(rows: F64, count: int) -> F64:
    return np.linspace(rows[:, 0], rows[:, -1], count, axis=1)


def _split(rows: F64, sums: F64, count: int) -> F64:
    """Return the means of clusters, of which always the one was cut that spares the most error."""
    of, n = np.arange(len(rows)), rows.shape[1]
    starts, ends, cuts = (np.zeros((len(rows), count), np.intp) for _ in range(3))
    gains = np.zeros((len(rows), count))
    ends[:, 0] = n
    cuts[:, :1], gains[:, :1] = _best_cut(rows, sums, starts[:, :1], ends[:, :1])
    for k in range(1, count):
        best = np.argmax(gains[:, :k], axis=1)
        starts[:, k], ends[:, k] = cuts[of, best], ends[of, best]
        ends[of, best] = cuts[of, best]
        both = np.stack([best, np.full(len(rows), k)], axis=1)
        put = of[:, None], both
        cuts[put], gains[put] = _best_cut(rows, sums, starts[put], ends[put])
    totals = np.take_along_axis(sums, ends, 1) - np.take_along_axis(sums, starts, 1)
    means = totals / np.maximum(ends - starts, 1)
    # of a cluster that could not be cut, one part is empty: of no use, but at a value that is there
    at = np.take_along_axis(rows, np.minimum(starts, n - 1), 1)
    return np.sort(np.where(ends > starts, means, at), axis=1)


def _best_cut(rows: F64, sums: F64, starts: AnyArray, ends: AnyArray) -> tuple[AnyArray, F64]:
    """Return where clusters are cut in two, and what error that spares.

    By 2-means, from the mean of the cluster and from the middle of its range: the better one.

    Args:
        rows: sorted.
        sums: running sums.
        starts: of clusters, shape ``(rows, clusters)``.
        ends: likewise; a cluster of fewer than two values is cut at its start, for nothing.
    """
    last = np.maximum(ends - 1, starts)
    whole = np.take_along_axis(sums, ends, 1) - np.take_along_axis(sums, starts, 1)
    mean = whole / np.maximum(ends - starts, 1)
    inner = np.minimum(starts, rows.shape[1] - 1), np.minimum(last, rows.shape[1] - 1)
    least, most = (np.take_along_axis(rows, i, 1) for i in inner)
    middle = (least + most) / 2
    one, other = (_cut_from(rows, sums, starts, ends, bound) for bound in (mean, middle))
    better = other[1] > one[1]
    return np.where(better, other[0], one[0]), np.where(better, other[1], one[1])


def _cut_from(
    rows: F64, sums: F64, starts: AnyArray, ends: AnyArray, bound: F64
) -> tuple[AnyArray, F64]:
    """Return where 2-means cuts clusters if it starts from a bound, and what that spares."""

    def mean(from_: AnyArray, to: AnyArray) -> F64:
        total = np.take_along_axis(sums, to, 1) - np.take_along_axis(sums, from_, 1)
        return np.asarray(total / np.maximum(to - from_, 1))

    for _ in range(_CUT_STEPS):
        cuts = np.clip(count_below(rows, bound, equal=True), starts, ends)
        left, right = mean(starts, cuts), mean(cuts, ends)
        inside = (cuts > starts) & (cuts < ends)
        bound = np.where(inside, (left + right) / 2, bound)
    weight = (cuts - starts) * (ends - cuts) / np.maximum(ends - starts, 1)
    gains = np.where(inside, weight * (right - left) ** 2, 0.0)
    return np.where(inside, cuts, starts), gains
