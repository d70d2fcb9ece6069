"""Codebooks of k-means, and pruning before it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from ptq.numerics.arrays import F32, F64
from ptq.numerics.kmeans import Init, k_means
from ptq.numerics.levels import snapped
from ptq.weights.codebook import Codebook, CodebookQuantizer, counts_of, to_nearest
from ptq.weights.gain import least_squares_gain


class KMeansQuantizer(CodebookQuantizer, frozen=True, tag="kmeans"):
    """The levels of least squared error of each channel, by k-means; small weights may go first.

    Of ``2^b`` levels, each weight has the nearest, and each level is the mean of its weights. With
    ``prune``, the smallest magnitudes become 0, and k-means is of the others: one level is 0 then.

    The paper starts from levels spaced evenly between the extremes, for so it keeps the large
    weights; afterwards it trains. Where nothing is trained, that wastes levels: weights of networks
    have 2 to 8 times the least squared error then (4 bits), against 1.05 where clusters are split
    one after the other.
    The paper has one codebook for a layer, and this by default one for each channel: where
    batchnorms are folded into the weights, channels are of very different sizes. It takes ``2^b``
    bytes a channel; `scaled` takes them once a layer, and channels keep scales of their own.

    Attributes:
        prune: the share of weights that become 0: of each channel, or of the layer where the
            codebook is the layer's.
        codebook_of: what has a codebook of its own: each ``channel``; the ``layer``, channels of
            which then have one scale, too; or, ``scaled``, the layer, of channels that are divided
            by the roots of their mean squares, and have scales.
        init: where k-means starts: ``split`` or, as in the paper, ``linear``.
    """

    paper: ClassVar[str] = (
        "Han et al., Deep Compression: Compressing Deep Neural Networks with Pruning, Trained "
        "Quantization and Huffman Coding, ICLR 2016, sections 2 and 3"
    )
    good_for: ClassVar[str] = (
        "4 to 2 bits, 3 to 8 dB over `mse`, in channels of 100 weights or more: each has a table"
    )
    free_levels: ClassVar[bool] = True

    prune: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    codebook_of: Literal["channel", "scaled", "layer"] = "channel"
    init: Init = "split"

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        count = 2**bits
        if self.codebook_of == "channel":
            return self._of_rows(rows, count)
        unit = _sizes(rows) if self.codebook_of == "scaled" else np.ones(len(rows))
        values = (rows / unit[:, None]).astype(np.float32)
        found = self._of_rows(values.reshape(1, -1), count)
        scale, codes = snapped(found.levels, counts_of(found.index, count))
        index = found.index.reshape(rows.shape)
        scales = unit * scale
        if self.codebook_of == "scaled":
            scales = least_squares_gain(rows, codes[0].astype(np.int64)[index])
        return Codebook(codes * scales[:, None], index, scales)

    def _of_rows(self, rows: F32, count: int) -> Codebook:
        if not self.prune:
            levels = k_means(np.sort(rows, axis=1).astype(np.float64), count, self.init)
            return to_nearest(rows, levels)
        order = np.argsort(np.abs(rows), axis=1, kind="stable")
        pruned, kept = np.split(order, [int(self.prune * rows.shape[1])], axis=1)
        values = np.sort(np.take_along_axis(rows, kept, axis=1), axis=1).astype(np.float64)
        levels = k_means(values, count - 1, self.init)
        levels = np.sort(np.concatenate([levels, np.zeros((len(rows), 1))], axis=1), axis=1)
        found = to_nearest(rows, levels)
        zero = np.broadcast_to((levels < 0).sum(axis=1)[:, None], pruned.shape)
        np.put_along_axis(found.index, pruned, zero, axis=1)
        return found


def _sizes(rows: F32) -> F64:
    """Return the root of the mean square of each row, 1 of zeros."""
    values = rows.astype(np.float64)
    root = np.sqrt(np.einsum("ij,ij->i", values, values) / max(rows.shape[1], 1))
    return np.where(root > 0, root, 1.0)
