"""Codebooks of k-means, and pruning before it."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.arrays import F32, F64
from ptq.numerics.kmeans import Init, k_means
from ptq.numerics.levels import snapped
from ptq.numerics.sorted_rows import count_below
from ptq.weights.codebook import Codebook, CodebookQuantizer, counts_of


class KMeansQuantizer(CodebookQuantizer, frozen=True, tag="kmeans"):
    """The levels of least squared error of each channel, by k-means; small weights may go first.

    Of ``2^b`` levels, each weight has the nearest, and each level is the mean of its weights. With
    ``prune``, the smallest magnitudes become 0, and k-means is of the others: one level is 0 then.

    The paper starts from levels spaced evenly between the extremes, for so it keeps the large
    weights; afterwards it trains. Where nothing is trained, that wastes levels: weights of networks
    have 2 to 8 times the least squared error then (4 bits), against 1.05 where clusters are split
    one after the other.
    The paper has one codebook for a layer, and this one for each channel: where batchnorms are
    folded into the weights, channels are of very different sizes.

    Attributes:
        prune: the share of weights that become 0: of each channel, or of the layer where the
            codebook is of the layer.
        shared: whether all channels have one codebook, and one scale.
        init: where k-means starts: ``split`` or, as in the paper, ``linear``.
    """

    paper: ClassVar[str] = (
        "Han et al., Deep Compression: Compressing Deep Neural Networks with Pruning, Trained "
        "Quantization and Huffman Coding, ICLR 2016, sections 2 and 3"
    )
    good_for: ClassVar[str] = "2 to 4 bits with symmetric codes"

    prune: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    shared: bool = False
    init: Init = "split"

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        if not self.shared:
            return self._of_rows(rows, 2**bits)
        found = self._of_rows(rows.reshape(1, -1), 2**bits)
        scale, codes = snapped(found.levels, counts_of(found.index, 2**bits))
        levels = np.repeat(codes * scale[:, None].astype(np.float64), len(rows), axis=0)
        scales = np.repeat(scale, len(rows)).astype(np.float64)
        return Codebook(levels, found.index.reshape(rows.shape), scales)

    def _of_rows(self, rows: F32, count: int) -> Codebook:
        if not self.prune:
            levels = k_means(np.sort(rows, axis=1).astype(np.float64), count, self.init)
            return to_nearest_of_many(rows, levels)
        order = np.argsort(np.abs(rows), axis=1, kind="stable")
        pruned, kept = np.split(order, [int(self.prune * rows.shape[1])], axis=1)
        values = np.sort(np.take_along_axis(rows, kept, axis=1), axis=1).astype(np.float64)
        levels = k_means(values, count - 1, self.init)
        levels = np.sort(np.concatenate([levels, np.zeros((len(rows), 1))], axis=1), axis=1)
        found = to_nearest_of_many(rows, levels)
        zero = np.broadcast_to((levels < 0).sum(axis=1)[:, None], pruned.shape)
        np.put_along_axis(found.index, pruned, zero, axis=1)
        return found


def to_nearest_of_many(rows: F32, levels: F64) -> Codebook:
    """Return the codebook with which each weight has the level next to it.

    `to_nearest` passes over the weights once for each level, and this once for each bit.
    """
    return Codebook(levels, count_below((levels[:, 1:] + levels[:, :-1]) / 2, rows))
