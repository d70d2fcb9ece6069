"""Real offsets of blocks, beside kernels that know integer zero points only.

A weight ``W = s (q - z) + m`` with an offset ``m`` for each block gives
``x W = x s (q - z) + sum_of_blocks(x) m``: a kernel on codes, and a product of a 32nd of the size.
MatMulNBits of onnxruntime 1.31 takes zero points of the type of ``x``, too; but then it dequantizes
the weight at every run, 14 times slower on a single row, and it takes none with 8 bits.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptq.graph.writer import GraphWriter, label


class BlockSums:
    """Sums of the blocks of what products read; products of the same input share them."""

    def __init__(self, writer: GraphWriter) -> None:
        self._writer = writer
        self._made: dict[tuple[int, int, int], ir.Value] = {}

    def product(
        self, node: ir.Node, x: ir.Value, offset: ir.Value, length: int, block: int
    ) -> ir.Value:
        """Return the sums of blocks of ``x``, times their offsets.

        Args:
            node: the new ones come before it.
            x: of known rank, the blocks along its last axis.
            offset: shape ``(blocks, outputs)``.
            length: of that axis.
            block: how many inputs a block has.
        """
        key = id(node.graph), id(x), block
        if key not in self._made:
            self._made[key] = self._sums(node, x, length, block)
        name = f"{label(node.outputs[0].name)}/offset"
        return self._writer.insert(node, "MatMul", [self._made[key], offset], name)

    def _sums(self, node: ir.Node, x: ir.Value, length: int, block: int) -> ir.Value:
        assert x.shape is not None and node.graph is not None
        name, writer, graph = f"{label(x.name)}/blocks", self._writer, node.graph
        rank, count = len(x.shape), -(-length // block)

        def ints(what: str, numbers: list[int]) -> ir.Value:
            return writer.constant(graph, f"{name}/{what}", np.array(numbers, np.int64))

        if missing := count * block - length:
            inputs = [x, ints("pads", [0, missing]), None, ints("last", [-1])]
            x = writer.insert(node, "Pad", inputs, f"{name}/filled")
        # 0 keeps a dimension as it is
        shape = ints("shape", [0] * (rank - 1) + [count, block])
        cut = writer.insert(node, "Reshape", [x, shape], f"{name}/cut")
        axes = ints("axis", [-1])
        return writer.insert(node, "ReduceSum", [cut, axes], f"{name}/sums", {"keepdims": 0})


def moved_rows(
    writer: GraphWriter,
    node: ir.Node,
    rows: ir.Value,
    offset: ir.Value,
    *,
    rank: int,
    blocks: tuple[int, int],
) -> ir.Value:
    """Return rows of a table, to the blocks of which their offsets are added.

    Args:
        writer: writes into the model.
        node: what looks rows up; the new ones come before it.
        rows: what it found, of a whole number of blocks.
        offset: of the whole table, shape ``(rows, blocks)``.
        rank: of the indices.
        blocks: how many there are, and how many columns each has.
    """
    assert node.graph is not None
    graph, name = node.graph, label(node.outputs[0].name)
    count, block = blocks

    def ints(what: str, numbers: list[int]) -> ir.Value:
        return writer.constant(graph, f"{name}/{what}", np.array(numbers, np.int64))

    found = writer.insert(node, "Gather", [offset, node.inputs[1]], f"{name}/offset")
    found = writer.insert(node, "Unsqueeze", [found, ints("last", [-1])], f"{name}/offsets")
    shape = ints("cut", [0] * rank + [count, block])
    cut = writer.insert(node, "Reshape", [rows, shape], f"{name}/blocks")
    moved = writer.insert(node, "Add", [cut, found], f"{name}/moved")
    shape = ints("joined", [0] * rank + [count * block])
    return writer.insert(node, "Reshape", [moved, shape], f"{name}/whole")
