"""Small integers packed into constants, and the nodes that unpack them when a model is loaded.

A number of ``b`` bits is cut into parts of 4, 2 and 1 bits. A part of 4 bits is a UINT4, and cast.
Of the others, as many as fill 4 bits are one UINT4, which is looked up in a table of 16 rows. Where
there are 3, 5 or 6 levels, a byte is 5 or 3 digits of that base, and is looked up as well. All of
it depends on constants alone, so that onnxruntime does it once.

Reference: none; measured with onnxruntime 1.31, which folds these operators before it chooses
kernels. Tables of int8 take less memory at load than arithmetic on bits, in float, does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array
from ptq.graph.writer import GraphWriter
from ptq.numerics.qtype import UINT4, QType

#: Numbers that are unpacked together: as many as one UINT4 has bits.
_TOGETHER = 4

#: The shape that their codes have.
_SQUARE = (2, 2)

#: How many digits a byte holds, of the bases of which that is more than bits do.
_DIGITS = {3: 5, 5: 3, 6: 3}

#: A constant that is there once: its graph, type, shape and bytes.
_Key: TypeAlias = tuple[int, str, tuple[int, ...], bytes]


def bits_for(count: int) -> int:
    """Return the least bits that tell so many things apart, 1 or more."""
    return max(1, (count - 1).bit_length())


def as_indices(ranks: Array, count: Array | int) -> Array:
    """Return ranks below ``count`` as indices around 0, int8: -1 is the last rank, as in Python."""
    return np.where(2 * ranks < count, ranks, ranks - count).astype(np.int8)


def packed_bytes(count: int, bits: int, levels: int = 0) -> int:
    """Return how many bytes numbers take, without the nodes that unpack them.

    Args:
        count: how many numbers.
        bits: of each.
        levels: how many values they are indices of; 0 where they stand for themselves.
    """
    return min(_bytes_of_parts(count, bits), _bytes_of_digits(count, levels))


class PackedCodes:
    """Writes packed numbers into the graphs of a model, before what is there.

    Args:
        writer: writes into the model.
    """

    def __init__(self, writer: GraphWriter) -> None:
        self._writer = writer
        self._shared: dict[_Key, ir.Value] = {}
        self._first: dict[int, ir.Node] = {}

    def unpacked(
        self, graph: ir.Graph, name: str, numbers: Array, bits: int, levels: Sequence[int] = ()
    ) -> tuple[ir.Value, int]:
        """Store numbers and return the code that each stands for.

        Args:
            graph: where they are stored.
            name: what is new is called after it.
            numbers: of ``bits`` in two's complement, shape ``(count,)``.
            bits: 1 to 7, but not 4, of which there is a type.
            levels: the codes that numbers are indices of; none where numbers are the codes.

        Returns:
            int8 codes in order, in some shape, and how many they are: ``count`` or a few more, of
            which the last mean nothing.
        """
        count, table = numbers.size, np.array(levels, np.int8)
        if _bytes_of_digits(count, len(levels)) < _bytes_of_parts(count, bits):
            return self._of_digits(graph, name, numbers, table)
        values = _twos_complement(bits)
        if not levels:
            return self._of_parts(graph, name, numbers, bits, values)
        if bits < 3:  # two tables, one after the other, are one
            return self._of_parts(graph, name, numbers, bits, table[values % len(levels)])
        index, length = self._of_parts(graph, name, numbers, bits, values)
        return self.looked_up(graph, name, index, table), length

    def stored(
        self, graph: ir.Graph, name: str, numbers: Array, qtype: QType | None = None
    ) -> ir.Value:
        """Return a new constant; of a ``qtype`` below 8 bits it has the type of that width."""
        return _untyped(self._writer.constant(graph, name, numbers, qtype))

    def looked_up(
        self, graph: ir.Graph, name: str, numbers: ir.Value, tables: Array, axis: int = 0
    ) -> ir.Value:
        """Return the codes that numbers are indices of.

        Args:
            graph: where the tables are stored.
            name: what is new is called after it.
            numbers: of any shape; a matrix, if there are several tables.
            tables: int8, a vector; or a matrix, with a table for each row or column of numbers.
            axis: of the tables, along which the codes of one are.
        """
        stored = self._constant(graph, f"{name}/levels", tables)
        index = self.cast(graph, f"{name}/index", numbers, ir.DataType.INT32)
        operator = "Gather" if tables.ndim == 1 else "GatherElements"
        return self._insert(graph, operator, [stored, index], f"{name}/codes", axis=axis)

    def cast(self, graph: ir.Graph, name: str, value: ir.Value, to: ir.DataType) -> ir.Value:
        """Return numbers in another type."""
        return self._insert(graph, "Cast", [value], name, to=int(to))

    def split(
        self, graph: ir.Graph, name: str, codes: ir.Value, sizes: list[int]
    ) -> list[ir.Value]:
        """Return parts of codes, one after the other; all of them in whatever shape they have."""
        if len(sizes) == 1:
            return [codes]
        row = self.reshaped(graph, f"{name}/all", codes, (-1,))
        names = [f"{name}/{i}" for i in range(len(sizes))]
        inputs = [row, self._ints(graph, sizes)]
        return list(self._writer.insert_node(self._before(graph), "Split", inputs, names))

    def reshaped(
        self, graph: ir.Graph, name: str, value: ir.Value, shape: tuple[int, ...]
    ) -> ir.Value:
        """Return a value in another shape."""
        return self._insert(graph, "Reshape", [value, self._ints(graph, shape)], name)

    def _of_digits(
        self, graph: ir.Graph, name: str, numbers: Array, table: Array
    ) -> tuple[ir.Value, int]:
        """Return codes of which several are the digits of a byte, the first counting least."""
        base = len(table)
        places = base ** np.arange(_DIGITS[base])
        ranks = _padded(numbers.astype(np.int64) % base, len(places))
        stored = self.stored(graph, name, (ranks * places).sum(axis=1).astype(np.uint8))
        rows = table[np.arange(base ** len(places))[:, None] // places % base]
        return self._row_of(graph, f"{name}/digits", stored, rows), ranks.size

    def _of_parts(
        self, graph: ir.Graph, name: str, numbers: Array, bits: int, values: Array
    ) -> tuple[ir.Value, int]:
        """Return codes that are put together of parts.

        Args:
            graph: where they are stored.
            name: what is new is called after it.
            numbers: two's complement of ``bits``.
            bits: of each.
            values: the code of each number from 0 on, its bits taken for a number without sign.
        """
        unsigned = _padded(numbers.astype(np.int64) & ((1 << bits) - 1), _TOGETHER)
        result, shift = None, 0
        for width in (w for w in (4, 2, 1) if bits & w):
            part = (unsigned >> shift) & ((1 << width) - 1)
            adds = np.arange(1 << width) << shift
            if shift + width == bits:  # of the highest bits, codes say what they add: the sign
                adds = values[adds]
            codes = self._of_part(graph, f"{name}/{width}", part, width, adds.astype(np.int8))
            if result is not None:
                codes = self._insert(graph, "BitwiseOr", [result, codes], f"{name}/upto{width}")
            result, shift = codes, shift + width
        assert result is not None
        return result, unsigned.size

    def _of_part(
        self, graph: ir.Graph, name: str, part: Array, width: int, adds: Array
    ) -> ir.Value:
        """Return what a part of each number adds; shape ``(numbers / 4, 2, 2)``."""
        if width == _TOGETHER:
            stored = self.stored(graph, name, part.reshape(-1, *_SQUARE), UINT4)
            return self.cast(graph, f"{name}/int8", stored, ir.DataType.INT8)
        per_index = _TOGETHER // width
        shifts = width * np.arange(per_index)
        index = (part.reshape(-1, per_index) << shifts).sum(axis=1)
        rows = adds[(np.arange(16)[:, None] >> shifts) & ((1 << width) - 1)]
        inner = _SQUARE[: per_index // 2]
        stored = self.stored(graph, name, index.reshape(-1, *_SQUARE[len(inner) :]), UINT4)
        return self._row_of(graph, name, stored, rows.reshape(16, *inner))

    def _row_of(self, graph: ir.Graph, name: str, index: ir.Value, rows: Array) -> ir.Value:
        """Return, for each index, the row of a table."""
        table = self._constant(graph, f"{name}/table", rows.astype(np.int8))
        index = self.cast(graph, f"{name}/index", index, ir.DataType.INT32)
        return self._insert(graph, "Gather", [table, index], f"{name}/codes", axis=0)

    def _insert(
        self, graph: ir.Graph, op_type: str, inputs: list[ir.Value], name: str, **attributes: int
    ) -> ir.Value:
        return self._writer.insert(self._before(graph), op_type, inputs, name, attributes)

    def _before(self, graph: ir.Graph) -> ir.Node:
        """Return the node that was the first of a graph, before which all is written in order."""
        return self._first.setdefault(id(graph), graph[0])

    def _ints(self, graph: ir.Graph, numbers: Sequence[int]) -> ir.Value:
        return self._constant(graph, "ints", np.array(numbers, np.int64))

    def _constant(self, graph: ir.Graph, name: str, array: Array) -> ir.Value:
        key = id(graph), array.dtype.name, array.shape, array.tobytes()
        if key not in self._shared:
            self._shared[key] = self.stored(graph, name, array)
        return self._shared[key]


def _untyped(value: ir.Value) -> ir.Value:
    """Forget what the tensor of a constant says as well, for a file would have it twice."""
    value.shape = value.type = None
    return value


def _twos_complement(bits: int) -> Array:
    """Return what numbers from 0 on stand for, if the highest of their bits counts negative."""
    numbers = np.arange(1 << bits)
    return np.where(2 * numbers < len(numbers), numbers, numbers - len(numbers))


def _padded(numbers: Array, multiple: int) -> Array:
    """Return rows of so many numbers, the last one filled with zeros."""
    return np.pad(numbers, (0, -numbers.size % multiple)).reshape(-1, multiple)


def _bytes_of_parts(count: int, bits: int) -> int:
    # of 4 bits, the numbers that fill up are not even there
    return -(-count // _TOGETHER) * bits * _TOGETHER // 8


def _bytes_of_digits(count: int, base: int) -> int:
    digits = _DIGITS.get(base)
    return count if digits is None else -(-count // digits) + digits * base**digits
