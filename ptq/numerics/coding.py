"""How far an entropy coder would go with quantized weights: entropy, Huffman code, zeros."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ptq.numerics.affine import QTensor, per_element
from ptq.numerics.arrays import AnyArray
from ptq.numerics.sorted_rows import count_below


@dataclass(frozen=True, slots=True)
class Coding:
    """What a coder of single weights could make of them, with a code for each tensor.

    Attributes:
        weights: how many there are.
        zeros: how many of them are 0.
        entropy_bits: the least that such a coder needs for a weight on average.
        huffman_bytes: what a Huffman code takes for all, without its tables.

    Reference: Han et al., "Deep Compression", ICLR 2016, section 4.
    """

    weights: int
    zeros: int
    entropy_bits: float
    huffman_bytes: int


def coding_of(tensors: Iterable[QTensor]) -> Coding:
    """Return how far an entropy coder would go with tensors.

    Of a grid, symbols are codes. Of levels that each channel has of its own, they are the ranks of
    levels, counted from 0: so that pruned weights have the same symbol in all channels.
    """
    weights = zeros = huffman = 0
    entropy = 0.0
    for tensor in tensors:
        _, zero_point = per_element(tensor.qparams, tensor.codes.shape)
        counts = np.unique(_symbols(tensor), return_counts=True)[1].tolist()
        weights += tensor.codes.size
        zeros += int(np.count_nonzero(tensor.codes == zero_point))
        entropy += sum(counts) * entropy_of(counts)
        huffman += sum(
            n * length for n, length in zip(counts, huffman_lengths(counts), strict=True)
        )
    return Coding(weights, zeros, entropy / max(weights, 1), -(-huffman // 8))


def entropy_of(counts: Sequence[int]) -> float:
    """Return ``-sum p log2 p`` in bits, of symbols that occur so often; of none, 0."""
    total = sum(counts)
    return math.fsum(n / total * math.log2(total / n) for n in counts if n)


def huffman_lengths(counts: Sequence[int]) -> list[int]:
    """Return the bits of each symbol in a Huffman code; 0 of the only one.

    Args:
        counts: how often each occurs, 1 or more.

    Reference: Huffman, "A Method for the Construction of Minimum-Redundancy Codes", Proceedings of
    the IRE, 1952.
    """
    lengths = [0] * len(counts)
    heap = [(n, symbol, [symbol]) for symbol, n in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (one, first, under), (other, _, more) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in under + more:
            lengths[symbol] += 1
        heapq.heappush(heap, (one + other, first, under + more))
    return lengths


def _symbols(tensor: QTensor) -> AnyArray:
    if tensor.levels is None:
        return tensor.codes
    axis = tensor.qparams.axis
    codes = tensor.codes[None] if axis is None else np.moveaxis(tensor.codes, axis, 0)
    levels = tensor.levels.reshape(-1, tensor.levels.shape[-1]).astype(np.float64)
    ranks = count_below(levels, codes.reshape(len(codes), -1).astype(np.float32))
    return np.asarray(ranks - (levels < 0).sum(axis=1)[:, None])
