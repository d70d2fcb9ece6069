"""CLIP-Q's quantizer: prune small weights, cut the rest of the axis evenly, take means."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.weights.codebook import Codebook, CodebookQuantizer

#: Shares that a search over layers has to choose from.
_MENU = (0.0, 0.1, 0.25, 0.5)


class ClipQQuantizer(CodebookQuantizer, frozen=True, tag="clipq"):
    """A share of each channel becomes 0, the rest the means of intervals of even length.

    Of the negative weights the share ``prune`` that is nearest to 0 becomes 0, and likewise of the
    positive ones. What is left of the axis, from the least weight to the first that is pruned, and
    from the last that is pruned to the largest, is cut into ``2^b - 1`` intervals, 0 having the
    last of the ``2^b`` codes; a level is the mean of the weights of its interval. The sides have
    intervals in proportion to their lengths, one at least: the paper does not say.

    The paper quantizes and prunes anew in each step of a training, and searches share and bits of
    each layer; here nothing is trained, and more than a tenth of
    zeros ruins a network. `--bits mixed` searches.

    Attributes:
        prune: the share of weights that become 0.
    """

    paper: ClassVar[str] = (
        "Tung and Mori, CLIP-Q: Deep Network Compression Learning by In-Parallel "
        "Pruning-Quantization, CVPR 2018, section 3.1"
    )
    good_for: ClassVar[str] = (
        "compressed files, by `--bits mixed`: a share of zeros for each layer; else `kmeans`"
    )
    free_levels: ClassVar[bool] = True
    least_bits: ClassVar[int] = 2

    prune: Annotated[float, Meta(ge=0, lt=1)] = 0.1

    def menu(self) -> tuple[str, ...]:
        """Return the shares that `--bits mixed` chooses from, with widths."""
        return tuple(f"clipq:prune={share}" for share in _MENU)

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        count = 2**bits
        levels, index = np.zeros((len(rows), count)), np.zeros(rows.shape, np.intp)
        for i, row in enumerate(rows):
            levels[i], index[i] = _clipped(row.astype(np.float64), count - 1, self.prune)
        return Codebook(levels, index)


def _clipped(row: F64, intervals: int, share: float) -> tuple[F64, AnyArray]:
    """Return the levels of a row, ascending, 0 among them, and the index of each weight."""
    sides = [_Side(-row, share), _Side(row, share)]
    lower = _share_of(sides, intervals)
    index = np.full(row.shape, lower)
    index[sides[0].kept] = lower - 1 - sides[0].cells(lower)
    index[sides[1].kept] = lower + 1 + sides[1].cells(intervals - lower)
    below, above = sides[0].means(lower), sides[1].means(intervals - lower)
    return np.concatenate([-below[::-1], [0.0], above]), index


class _Side:
    """The weights of one sign, as magnitudes, and those of them that are kept.

    Attributes:
        kept: where they are in the row.
        magnitudes: of those.
        start: the largest magnitude that is pruned; 0 if none is.
        length: from there to the largest.
    """

    def __init__(self, row: F64, share: float) -> None:
        mine = np.flatnonzero(row > 0)
        order = mine[np.argsort(row[mine], kind="stable")]
        pruned = int(share * order.size)
        self.kept = order[pruned:]
        self.magnitudes = row[self.kept]
        self.start = row[order[pruned - 1]] if pruned else 0.0
        self.length = self.magnitudes.max(initial=self.start) - self.start

    def cells(self, count: int) -> AnyArray:
        """Return which of so many even intervals each magnitude is in; the ends count inwards."""
        if not self.length:
            return np.zeros(self.kept.shape, np.intp)
        place = (self.magnitudes - self.start) / self.length * count
        return np.asarray(np.clip(place.astype(np.intp), 0, count - 1))

    def means(self, count: int) -> F64:
        """Return the mean of each interval, ascending; of empty ones the middle."""
        cells = self.cells(count)
        sizes = np.bincount(cells, minlength=count)
        sums = np.bincount(cells, self.magnitudes, minlength=count)
        middles = self.start + self.length * (np.arange(count) + 0.5) / max(count, 1)
        return np.where(sizes > 0, sums / np.maximum(sizes, 1), middles)


def _share_of(sides: list[_Side], intervals: int) -> int:
    """Return how many intervals the negative side has."""
    lengths = [side.length for side in sides]
    alone = [not side.kept.size for side in sides]
    if any(alone):
        return 0 if alone[0] else intervals
    whole = sum(lengths)
    part = round(intervals * lengths[0] / whole) if whole else intervals // 2
    return min(max(part, 1), intervals - 1)
