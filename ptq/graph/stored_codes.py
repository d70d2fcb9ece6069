"""Constants that are in the file in few bits, and are put together when the model is loaded.

What is computed from constants alone runtimes compute once. So a kernel that wants 8 bits a code,
or float32 scales, reads them, and the file has no more bits than there is to tell apart.

Measured with onnxruntime 1.31: all of it is folded before MatMulNBits packs its weights, so that
speed is that of plain constants.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array
from ptq.graph.writer import GraphWriter
from ptq.numerics.arrays import F32
from ptq.numerics.block_tensor import Stored
from ptq.numerics.blocks import pack
from ptq.numerics.qtype import INT4, INT8, UINT4, UINT8, QType


class StoredCodes:
    """Nodes and constants of one weight; the nodes come first in its graph.

    Args:
        writer: writes into the model.
        graph: where the weight is.
        name: what new values are called after.
    """

    def __init__(self, writer: GraphWriter, graph: ir.Graph, name: str) -> None:
        self.graph = graph
        self.writer = writer
        self.name = name
        self.first = graph[0]
        self._brief = False

    def looked_up(self, index: Array, bits: int, table: Array) -> ir.Value:
        """Return numbers of a table; the file has an index of so many bits for each.

        Args:
            index: from 0 up, of any shape.
            bits: that an index takes.
            table: a vector, of the type that is wanted.
        """
        if index.size < table.size:  # a table is larger than what it is for
            return self.constant("codes", table[index])
        self._be_brief()
        found = self.numbers(index, bits, "index", ir.DataType.INT32)
        return self.insert("Gather", [self.constant("table", table), found], "codes")

    def scales(self, scale: F32, stored: Stored, name: str, *, turned: bool = False) -> ir.Value:
        """Return scales or offsets in float32, of blocks in the order of the codes.

        Args:
            scale: the numbers, as `ptq.numerics.block_tensor` has them.
            stored: how the file has them.
            name: what they are called after.
            turned: whether the blocks are along the other axis than that of super-blocks: then
                what is returned has rows for columns, and so has ``scale``.
        """
        if stored is None:
            return self.constant(name, scale)
        self._be_brief()
        if stored == "exponents":
            _, exponent = np.frexp(scale)
            least = int(exponent.min(initial=0))
            table = np.ldexp(np.float32(1), np.arange(least, int(exponent.max(initial=0)) + 1) - 1)
            index, count = exponent - least, len(table)
            bits = 4 if count <= UINT4.levels else 8
            found = self.numbers(index.astype(np.uint8), bits, name, ir.DataType.INT32)
            powers = self.constant(f"{name}_t", table.astype(np.float32))
            return self.insert("Gather", [powers, found], f"{name}_e")
        # rows of super-blocks, of which the last may lack blocks
        rows, blocks = stored.codes.shape
        count = stored.steps.shape[1]
        filled = np.pad(stored.codes, ((0, 0), (0, count * stored.each - blocks)))
        most = (1 << (stored.bits - 1)) if stored.signed else 0
        grid = filled.reshape(rows, count, stored.each)
        if stored.bits == 6:
            result = self.numbers((grid + most).astype(np.uint8), 6, name, ir.DataType.FLOAT)
            if most:
                middle = self.constant(f"{name}_m", np.array(most, np.float32))
                result = self.insert("Sub", [result, middle], f"{name}_s")
        else:
            of_bits = {(4, True): INT4, (4, False): UINT4, (8, True): INT8, (8, False): UINT8}
            result = self.cast(grid, of_bits[stored.bits, stored.signed], name)
        steps = self.constant(f"{name}_steps", stored.steps[:, :, None])
        steps = self.insert("Cast", [steps], f"{name}_f", to=int(ir.DataType.FLOAT))
        gain = self.constant(f"{name}_gain", np.asarray(stored.gain, np.float32))
        steps = self.insert("Mul", [steps, gain], f"{name}_g")
        result = self.insert("Mul", [result, steps], f"{name}_p")
        if count * stored.each != blocks:
            result = self.reshape(result, (rows, count * stored.each), f"{name}_r")
            bounds = [self.ints(n, [i]) for n, i in (("start", 0), ("end", blocks), ("axis", 1))]
            result = self.insert("Slice", [result, *bounds], f"{name}_c")
        result = self.reshape(result, (rows, blocks), f"{name}_float")
        if turned:
            result = self.insert("Transpose", [result], f"{name}_x", perm=[1, 0])
        return result

    def numbers(self, codes: Array, bits: int, name: str, to: ir.DataType) -> ir.Value:
        """Return unsigned codes as numbers of a type; the file has about so many bits of each."""
        if bits in (2, 4, 8):
            return self.cast(codes, QType(bits, signed=False), name, to)
        self._be_brief()
        # the lower bits, and the upper ones apart: 2 + 1, 4 + 1, 4 + 2
        low = 4 if bits > 4 else 2
        parts = [
            self.cast(codes & ((1 << low) - 1), QType(low, signed=False), f"{name}_l"),
            self.cast(codes >> low, QType(bits - low, signed=False), f"{name}_h"),
        ]
        worth = self.constant("worth", np.array(1 << low, np.float32))
        parts[1] = self.insert("Mul", [parts[1], worth], f"{name}_hw")
        result = self.insert("Add", parts, f"{name}_w")
        if to == ir.DataType.FLOAT:
            return result
        return self.insert("Cast", [result], f"{name}_wc", to=int(to))

    def cast(
        self, codes: Array, qtype: QType, name: str, to: ir.DataType = ir.DataType.FLOAT
    ) -> ir.Value:
        """Return integers as numbers; they are stored in as many bits as the grid has."""
        if qtype.bits > 2:
            stored = self.writer.constant(self.graph, f"{self.name}/{name}", codes, qtype)
        else:  # types of 2 bits come with opset 25, of 1 bit with none: bytes are cut up
            bits = qtype.bits
            packed = pack(codes.astype(np.uint8).reshape(-1), bits)[:, None]
            shifts = self.constant("shifts", np.arange(0, 8, bits, dtype=np.uint8))
            mask = self.constant("mask", np.array((1 << bits) - 1, np.uint8))
            stored = self.constant(f"{name}_packed", packed)
            stored = self.insert("BitShift", [stored, shifts], "shifted", direction="RIGHT")
            stored = self.insert("BitwiseAnd", [stored, mask], "masked")
            if packed.size * (8 // bits) != codes.size:
                stored = self.reshape(stored, (-1,), "flat")
                bounds = [self.ints("start", [0]), self.ints("end", [codes.size])]
                stored = self.insert("Slice", [stored, *bounds], "used")
            stored = self.reshape(stored, codes.shape, f"{name}_unpacked")
        return self.insert("Cast", [stored], f"{name}_float", to=int(to))

    def _be_brief(self) -> None:
        """Call what follows by a short name: of many nodes, long ones would outweigh scales."""
        if not self._brief:
            self.name, self._brief = self.writer.fresh("b"), True

    def reshape(self, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Value:
        """Return a value in another shape."""
        return self.insert("Reshape", [value, self.ints("shape", shape)], name)

    def insert(
        self, op_type: str, inputs: list[ir.Value], name: str, **attributes: int | str | list[int]
    ) -> ir.Value:
        """Insert an operator and return what it puts out."""
        given = {
            key: ir.AttrInt64s(key, value) if isinstance(value, list) else value
            for key, value in attributes.items()
        }
        return self.writer.insert(self.first, op_type, inputs, f"{self.name}/{name}", given)

    def ints(self, name: str, numbers: tuple[int, ...] | list[int]) -> ir.Value:
        """Return a constant vector of int64."""
        return self.constant(name, np.array(numbers, np.int64))

    def constant(self, name: str, array: Array) -> ir.Value:
        """Return a constant."""
        return self.writer.constant(self.graph, f"{self.name}/{name}", array)
