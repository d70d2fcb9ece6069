"""Keep a weight in few bits in the file, and compute its floats when the model is loaded.

Cast, Sub, Mul and Reshape of constants are standard operators, which onnxruntime and other
runtimes compute once, when they load the model. So, unlike behind a DequantizeLinear, which
onnxruntime executes at every run, the operator that reads the weight is as fast as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, is_op
from ptq.graph.scheme import Fates, weight_readers
from ptq.graph.writer import GraphWriter, array_of, label
from ptq.numerics.affine import QTensor
from ptq.numerics.blocks import BlockFormat, pack
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
            fates.unpacks(node, value.name, bits=tensor.qparams.qtype.bits)
        count += 1
    return count


def even_blocks(length: int, qtype: QType, block: int, *, symmetric: bool) -> BlockFormat:
    """Return blocks of rows of this length, of nearly one size, which is at most ``block``."""
    count = -(-length // block)
    return BlockFormat(qtype, 1, -(-length // count), symmetric)


class _Unpacking:
    """The nodes that unpack one weight; they come first in its graph."""

    def __init__(self, writer: GraphWriter, value: ir.Value) -> None:
        assert value.graph is not None
        self.graph = value.graph
        self.writer = writer
        self.name = label(value.name)
        self.first = self.graph[0]

    def floats(self, shape: tuple[int, ...], rows: QTensor) -> ir.Value:
        params = rows.qparams
        assert params.block_size is not None
        height, width = rows.codes.shape
        size, count = params.block_size, params.scale.shape[1]
        qtype, zero_point = params.qtype, np.asarray(params.zero_point, np.int16)
        codes = rows.codes.astype(np.int16)
        filled = np.concatenate(
            [codes, np.repeat(zero_point[:, -1:], count * size - width, axis=1)], axis=1
        ).reshape(height, count, size)
        symmetric = bool(np.all(zero_point == qtype.middle))
        if symmetric and qtype.bits > 2:  # signed codes need no zero point
            signed = QType(qtype.bits, signed=True)
            result = self._cast(filled - qtype.middle, signed, "codes")
        else:
            result = self._cast(filled, qtype, "codes")
            zero = self._zero_point(zero_point, qtype, symmetric=symmetric)
            result = self._insert("Sub", [result, zero], "steps")
        scale = self._constant("scale", params.scale[:, :, None])
        result = self._insert("Mul", [result, scale], "scaled")
        if count * size != width:
            result = self._reshape(result, (height, count * size), "rows")
            bounds = [self._ints(n, [i]) for n, i in (("start", 0), ("end", width), ("axis", 1))]
            result = self._insert("Slice", [result, *bounds], "cut")
        return self._reshape(result, shape, "unpacked")

    def _zero_point(self, zero_point: Array, qtype: QType, *, symmetric: bool) -> ir.Value:
        if symmetric:
            return self._constant("zero_point", np.array(qtype.middle, np.float32))
        return self._cast(zero_point[:, :, None], qtype, "zero_point")

    def _cast(self, codes: Array, qtype: QType, name: str) -> ir.Value:
        """Return integers as floats; they are stored in as many bits as the grid has."""
        if qtype.bits != 2:
            stored = self.writer.constant(self.graph, f"{self.name}/{name}", codes, qtype)
        else:  # types of 2 bits come with opset 25, so that bytes are cut up
            packed = pack(codes.astype(np.uint8).reshape(-1), 2)[:, None]
            shifts = self._constant("shifts", np.arange(0, 8, 2, dtype=np.uint8))
            mask = self._constant("mask", np.array(3, np.uint8))
            stored = self._constant(f"{name}_packed", packed)
            stored = self._insert("BitShift", [stored, shifts], "shifted", direction="RIGHT")
            stored = self._insert("BitwiseAnd", [stored, mask], "masked")
            if packed.size * 4 != codes.size:
                stored = self._reshape(stored, (-1,), "flat")
                bounds = [self._ints("start", [0]), self._ints("end", [codes.size])]
                stored = self._insert("Slice", [stored, *bounds], "used")
            stored = self._reshape(stored, codes.shape, f"{name}_unpacked")
        return self._insert("Cast", [stored], f"{name}_float", to=int(ir.DataType.FLOAT))

    def _reshape(self, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Value:
        return self._insert("Reshape", [value, self._ints("shape", shape)], name)

    def _insert(
        self, op_type: str, inputs: list[ir.Value], name: str, **attributes: int | str
    ) -> ir.Value:
        return self.writer.insert(self.first, op_type, inputs, f"{self.name}/{name}", attributes)

    def _ints(self, name: str, numbers: tuple[int, ...] | list[int]) -> ir.Value:
        return self._constant(name, np.array(numbers, np.int64))

    def _constant(self, name: str, array: Array) -> ir.Value:
        return self.writer.constant(self.graph, f"{self.name}/{name}", array)
