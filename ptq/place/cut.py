"""Choose the cheapest placement: a minimum cut between what runs in integers and what in float.

Every operator that could become integer pays for its integer or for its float kernel; a tensor that
is made on one side and read on the other pays once for its conversion. Such costs are submodular,
so that a minimum cut finds the least sum exactly.

Reference: Kolmogorov and Zabih, "What energy functions can be minimized via graph cuts?", IEEE
TPAMI 26(2), 2004, section 4; the two auxiliary nodes of a tensor are its "robust" pairwise terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

#: Capacities are whole nanoseconds: scipy's maximum flow takes int32.
_NS_PER_MS = 1e6

#: More than any cut costs: two seconds, beyond which all costs are scaled down.
_INFINITE = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Block:
    """An operator that can run either way, with what it absorbs.

    Attributes:
        name: its node.
        float_ms: what its float kernels cost.
        integer_ms: what its integer kernel costs.
        reads: the activation tensors that it reads.
        writes: the tensors that it makes.
        dequantizes: whether the integer kernel can put out floats itself, at no cost.
    """

    name: str
    float_ms: float
    integer_ms: float
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    dequantizes: bool = False


@dataclass(frozen=True, slots=True)
class Boundary:
    """What it costs to take a tensor from float to codes, and from codes to float."""

    quantize_ms: float
    dequantize_ms: float


@dataclass(frozen=True, slots=True)
class Cut:
    """A placement.

    Attributes:
        integer: names of the blocks that run as integer kernels.
        ms: what blocks and conversions cost in it.
    """

    integer: frozenset[str]
    ms: float


def cheapest_cut(
    blocks: Iterable[Block], boundaries: Mapping[str, Boundary], float_readers: frozenset[str]
) -> Cut:
    """Return the placement of least cost.

    Args:
        blocks: the operators to place.
        boundaries: conversion costs by tensor.
        float_readers: tensors that something reads in float whatever is chosen: an operator that
            is no block, or the user.
    """
    listed = tuple(blocks)
    network = _Network(listed, boundaries, float_readers)
    integer = network.integer_side()
    return Cut(integer, cost_of(integer, listed, boundaries, float_readers))


def cost_of(
    integer: frozenset[str],
    blocks: Iterable[Block],
    boundaries: Mapping[str, Boundary],
    float_readers: frozenset[str],
) -> float:
    """Return what blocks and conversions cost, in milliseconds, if these are integer."""
    listed = tuple(blocks)
    total = sum(b.integer_ms if b.name in integer else b.float_ms for b in listed)
    maker = {t: b for b in listed for t in b.writes}
    readers = _readers(listed)
    for tensor, boundary in boundaries.items():
        made = maker.get(tensor)
        codes = made is not None and made.name in integer
        read_in_float = tensor in float_readers
        read_in_integers = False
        for block in readers.get(tensor, ()):
            read_in_integers |= block.name in integer
            read_in_float |= block.name not in integer
        if codes and read_in_float and made is not None and not made.dequantizes:
            total += boundary.dequantize_ms
        if not codes and read_in_integers:
            total += boundary.quantize_ms
    return total


class _Network:
    """The flow network: the source side is integer, the sink side is float."""

    def __init__(
        self,
        blocks: tuple[Block, ...],
        boundaries: Mapping[str, Boundary],
        float_readers: frozenset[str],
    ) -> None:
        self.blocks = blocks
        self.nodes = {block.name: i + 2 for i, block in enumerate(blocks)}
        self.edges: dict[tuple[int, int], float] = {}
        self.size = len(blocks) + 2
        for block in blocks:
            self._edge(_SOURCE, self.nodes[block.name], block.float_ms)
            self._edge(self.nodes[block.name], _SINK, block.integer_ms)
        maker = {t: b for b in blocks for t in b.writes}
        readers = _readers(blocks)
        for tensor, boundary in boundaries.items():
            ends = [self.nodes[b.name] for b in readers.get(tensor, ())]
            made = maker.get(tensor)
            self._quantized(_SINK if made is None else self.nodes[made.name], ends, boundary)
            if made is not None and not made.dequantizes:
                floats = [*ends, *([_SINK] if tensor in float_readers else [])]
                self._dequantized(self.nodes[made.name], floats, boundary)

    def _quantized(self, maker: int, readers: list[int], boundary: Boundary) -> None:
        """Pay once if the maker is float and a reader integer."""
        if not readers:
            return
        shared = self._fresh()
        self._edge(shared, maker, boundary.quantize_ms)
        for reader in readers:
            self.edges[reader, shared] = np.inf

    def _dequantized(self, maker: int, readers: list[int], boundary: Boundary) -> None:
        """Pay once if the maker is integer and a reader float."""
        if not readers:
            return
        shared = self._fresh()
        self._edge(maker, shared, boundary.dequantize_ms)
        for reader in readers:
            self.edges[shared, reader] = np.inf

    def _fresh(self) -> int:
        self.size += 1
        return self.size - 1

    def _edge(self, start: int, end: int, ms: float) -> None:
        self.edges[start, end] = self.edges.get((start, end), 0.0) + ms

    def integer_side(self) -> frozenset[str]:
        """Return the blocks on the source side of a minimum cut; of several, the least."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        if not self.blocks:
            return frozenset()
        starts, ends = np.array(list(self.edges), np.int32).T
        ms = np.array(list(self.edges.values()))
        finite = np.isfinite(ms)
        scale = min(_NS_PER_MS, (_INFINITE // 2) / max(float(ms[finite].sum()), 1e-9))
        capacities = np.full(len(ms), _INFINITE, np.int32)
        capacities[finite] = np.rint(ms[finite] * scale)
        shape = (self.size, self.size)
        network = csr_array((capacities, (starts, ends)), shape=shape)
        flow = maximum_flow(network, _SOURCE, _SINK).flow
        residual = network - flow
        residual.data = np.where(residual.data > 0, 1, 0)
        residual.eliminate_zeros()
        reached = set(breadth_first_order(residual, _SOURCE, return_predecessors=False).tolist())
        return frozenset(b.name for b in self.blocks if self.nodes[b.name] in reached)


_SOURCE, _SINK = 0, 1


def _readers(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    readers: dict[str, list[Block]] = {}
    for block in blocks:
        for tensor in dict.fromkeys(block.reads):
            readers.setdefault(tensor, []).append(block)
    return readers
