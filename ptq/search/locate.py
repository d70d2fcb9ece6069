"""Find the few parts that do most of the damage, by measuring groups of them.

A group is quantized alone, all else in float. Noise that is small and independent adds up in power,
so that a group that does little holds no part that does much, and need not be looked into: group
testing. A hundred layers of which six matter take some thirty measurements.

Reference: Dorfman, "The detection of defective members of large populations", Annals of
Mathematical Statistics 14(4), 1943; Hwang's binary splitting, JASA 67, 1972.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ptq.numerics.arrays import F64

#: Measures the noise of some groups of neighbours.
MeasureGroups = Callable[[Sequence[range]], Sequence[float]]

#: How many groups are halved at once, so that measurements run side by side.
_SIDE_BY_SIDE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """What each part does to the output.

    Attributes:
        noise: of each part alone, 0 or more; of a group that was not looked into, an equal share.
        measured: how many groups were measured.
    """

    noise: F64
    measured: int


def locate(count: int, measure: MeasureGroups, *, enough: float, trials: int) -> Located:
    """Return the noise of each of some parts in a row.

    The group of most noise is halved, again and again.

    Args:
        count: how many parts there are, 1 or more.
        measure: quantizes groups, each alone.
        enough: groups are not looked into that have no more noise than this together.
        trials: how many groups to measure at most; at least one is.
    """
    [whole] = measure([range(count)])
    measured = 1
    noise = np.full(count, whole / count)
    groups = [(-whole, 0, range(count))] if count > 1 else []
    while groups and measured + 2 <= trials and -sum(g[0] for g in groups) > enough:
        halves: list[range] = []
        while groups and len(halves) < 2 * _SIDE_BY_SIDE and measured + len(halves) + 2 <= trials:
            _, _, group = heapq.heappop(groups)
            middle = (group.start + group.stop) // 2
            halves += [range(group.start, middle), range(middle, group.stop)]
        found = measure(halves)
        measured += len(halves)
        for half, value in zip(halves, found, strict=True):
            if len(half) == 1:
                noise[half.start] = value
            else:
                heapq.heappush(groups, (-value, half.start, half))
    for negative, _, group in groups:
        noise[group.start : group.stop] = -negative / len(group)
    return Located(noise, measured)
