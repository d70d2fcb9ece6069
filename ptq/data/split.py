"""Cut a data set in two: half to choose with, half to report on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptq.data.dataset import Dataset
from ptq.errors import DataError

#: With fewer samples than this in all, either half says nothing.
LEAST = 8


def halves(positions: Sequence[int], seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two disjoint halves of the positions, both in their order.

    Of each two neighbours one goes to either side, by a coin of the seed: data that is sorted, by
    class or by time, is then spread evenly. An odd last one goes to the first half.
    """
    coins = np.random.default_rng(seed).integers(0, 2, size=len(positions) // 2)
    first, second = [], []
    for i, coin in enumerate(coins):
        pair = positions[2 * i], positions[2 * i + 1]
        first.append(pair[coin])
        second.append(pair[1 - coin])
    first.extend(positions[2 * len(coins) :])
    return tuple(first), tuple(second)


def split_in_halves(data: Dataset, again: Dataset, seed: int) -> None:
    """Leave one half of the samples to one data set, and the others to another of the same source.

    Args:
        data: keeps the first half.
        again: the same source, opened once more; keeps the second half.
        seed: of the split.

    Raises:
        DataError: the source can only be read from its start, or has too few samples.
    """
    if data.positions is None:
        raise DataError(
            f"'{data.source}' can only be read from its start, and not be cut in two; give "
            "--report-data to report on other data than is chosen with"
        )
    if len(data) < LEAST:
        raise DataError(
            f"'{data.source}' has {len(data)} samples, too few to choose with one half and to "
            f"report on the other; give {LEAST} or more, or --report-data"
        )
    data.positions, again.positions = halves(list(data.positions), seed)
