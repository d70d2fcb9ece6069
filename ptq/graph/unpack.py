"""Keep a weight in few bits in the file, and compute its floats when the model is loaded.

Cast, Sub, Mul and Reshape of constants are standard operators, which onnxruntime and other
runtimes compute once, when they load the model. So, unlike behind a DequantizeLinear, which
onnxruntime executes at every run, the operator that reads the weight is as fast as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, is_op
from ptq.graph.scheme import Fates, weight_readers
from ptq.graph.stored_codes import StoredCodes
from ptq.graph.writer import GraphWriter, array_of, label
from ptq.numerics.affine import QTensor
from ptq.numerics.block_tensor import FloatTensor, Stored, offset_of
from ptq.numerics.blocks import BlockFormat
from ptq.numerics.qtype import QType

#: How the rows of a weight that a node reads are quantized: in blocks along axis 1.
QuantizeRows = Callable[[ir.Value, ir.Node, Array], QTensor]


def unpack_constants(
    writer: GraphWriter, fates: Fates, constants: Iterable[ir.Value], quantize: QuantizeRows
) -> int:
    """Keep in few bits what operators in float have as weights; return how many there are.

    Args:
        writer: writes into the model.
        fates: what becomes of the nodes; those that stay in float are noted.
        constants: the candidates. A constant with a reader that is excluded stays as it is.
        quantize: returns the codes of a weight, given as a matrix: each row belongs to one channel
            of a convolution, or is a row along the last axis.
    """
    count = 0
    for value in constants:
        readers = weight_readers(value)
        if not readers or any(map(fates.excluded, readers)):
            continue
        array = array_of(value)
        assert array is not None
        convolution = any(is_op(n, "Conv", "ConvTranspose") for n in readers)
        shape = (array.shape[0], -1) if convolution else (-1, array.shape[-1])
        first = min(readers, key=lambda n: n.name or "")
        tensor = quantize(value, first, array.reshape(shape))
        value.replace_all_uses_with(_Unpacking(writer, value).floats(array.shape, tensor))
        for node in readers:
            fates.unpacks(node, value.name, bits=tensor.bits)
        count += 1
    return count


def even_blocks(length: int, qtype: QType, block: int, *, symmetric: bool) -> BlockFormat:
    """Return blocks of rows of this length, of nearly one size, which is at most ``block``."""
    count = -(-length // block)
    return BlockFormat(qtype, 1, -(-length // count), symmetric)


class _Unpacking(StoredCodes):
    """The nodes that unpack one weight; they come first in its graph."""

    def __init__(self, writer: GraphWriter, value: ir.Value) -> None:
        assert value.graph is not None
        super().__init__(writer, value.graph, label(value.name))

    def floats(self, shape: tuple[int, ...], rows: QTensor) -> ir.Value:
        """Return the weight in its own shape.

        Args:
            shape: the one that readers expect.
            rows: the weight as a matrix, its blocks along axis 1.
        """
        params = rows.qparams
        assert params.block_size is not None
        height, width = rows.codes.shape
        size, count = params.block_size, params.scale.shape[1]
        zero_point = np.asarray(params.zero_point, np.int16)
        codes = rows.codes.astype(np.int16)
        filled = np.concatenate(
            [codes, np.repeat(zero_point[:, -1:], count * size - width, axis=1)], axis=1
        ).reshape(height, count, size)
        result = self._steps(filled, rows)
        result = self.insert("Mul", [result, self._per_block(rows, "scale")], "scaled")
        if offset_of(rows) is not None:
            result = self.insert("Add", [result, self._per_block(rows, "offset")], "moved")
        if count * size != width:
            result = self.reshape(result, (height, count * size), "rows")
            bounds = [self.ints(n, [i]) for n, i in (("start", 0), ("end", width), ("axis", 1))]
            result = self.insert("Slice", [result, *bounds], "cut")
        return self.reshape(result, shape, "unpacked")

    def _steps(self, filled: Array, rows: QTensor) -> ir.Value:
        """Return the weight in steps of its scales, shape ``(rows, blocks, weights)``."""
        qtype, zero_point = rows.qparams.qtype, np.asarray(rows.qparams.zero_point, np.int16)
        if isinstance(rows, FloatTensor):
            floats = filled.astype(np.uint8).view(ir.DataType[rows.form.upper()].numpy())
            stored = self.constant("codes", floats)
            return self.insert("Cast", [stored], "codes_float", to=int(ir.DataType.FLOAT))
        if rows.levels is not None:
            table = rows.levels.reshape(-1, rows.levels.shape[-1])[0]
            index = np.searchsorted(table, filled).astype(np.uint8)
            return self.looked_up(index, rows.bits, table.astype(np.float32))
        symmetric = bool(np.all(zero_point == qtype.middle))
        whole = qtype.bits in (4, 8)
        if symmetric and whole:  # signed codes need no zero point
            signed = QType(qtype.bits, signed=True)
            return self.cast(filled - qtype.middle, signed, "codes")
        result = self.numbers(filled, qtype.bits, "codes", ir.DataType.FLOAT)
        zero = self._zero_point(zero_point, qtype, symmetric=symmetric)
        return self.insert("Sub", [result, zero], "steps")

    def _per_block(self, rows: QTensor, what: Literal["scale", "offset"]) -> ir.Value:
        numbers = rows.qparams.scale if what == "scale" else offset_of(rows)
        assert numbers is not None
        stored: Stored = getattr(rows, f"stored_{what}", None)
        if stored is None:
            return self.constant(what, numbers[:, :, None])
        found = self.scales(numbers, stored, what)
        return self.reshape(found, (*numbers.shape, 1), f"{what}_each")

    def _zero_point(self, zero_point: Array, qtype: QType, *, symmetric: bool) -> ir.Value:
        if symmetric:
            return self.constant("zero_point", np.array(qtype.middle, np.float32))
        each = zero_point[:, :, None]
        return self.numbers(each, qtype.bits, "zero_point", ir.DataType.FLOAT)
