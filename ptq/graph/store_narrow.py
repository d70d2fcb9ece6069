"""Store weights in as few bits as their codes take, and widen them to int8 at load.

Kernels multiply int8. onnxruntime does not fuse an operator with a DequantizeLinear of INT4; but
what is computed from constants alone it computes once, when it loads the model, and then finds the
int8 codes that it fuses. So the file has few bits a weight, and the model runs as fast as with 8.

Reference: none; measured with onnxruntime 1.31: a Cast of INT4, and operators that put bits
together, are folded before integer kernels are chosen, in files with QuantizeLinear and with fused
operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Array, constant
from ptq.graph.writer import GraphWriter
from ptq.numerics.qtype import INT4, QType

#: About how many bytes the nodes take that put a weight together: of INT4, a Cast; of other
#: widths, the nodes of `_Widening`.
_CAST_BYTES, _PLANES_BYTES = 60, 600


def store_narrow(model: ir.Model) -> int:
    """Store int8 weights in fewer bits where that makes the file smaller; return how many.

    Which codes there are decides, not what they were made for: a weight of 4 bits of which the
    codes fit 3 is stored in 3. What is read as constants otherwise stays: vectors, as zero points
    are, and codes of more than 7 bits.

    Args:
        model: a quantized model of opset 21 or newer; it is changed.
    """
    found = [
        _Narrow(graph, value, value.name or "", codes, form)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if (codes := constant(value)) is not None and (form := _form_of(value, codes))
    ]
    for one in found:
        del one.graph.initializers[one.name]
        one.value.name = f"{one.name}/wide"  # what is stored has the name, by which it is found
    writer, shared = GraphWriter(model), dict[_Key, ir.Value]()
    for number, one in enumerate(found):
        widened = _Widening(writer, one, f"w{number}", shared).codes()
        one.value.replace_all_uses_with(widened)
    return len(found)


def stored_bytes(count: int, bits: int) -> int:
    """Return about how many bytes a weight takes in the file, with the nodes that widen it.

    Args:
        count: how many codes it has.
        bits: of each.
    """
    return count - max(0, *_saved(count, bits))


def bits_of(codes: Array) -> int:
    """Return the least width of two's complement that holds all of these, 1 or more."""
    lo, hi = int(codes.min(initial=0)), int(codes.max(initial=0))
    return 1 + max((-lo - 1).bit_length() if lo < 0 else 0, hi.bit_length())


#: A constant that several weights can share: its graph, name, shape and bytes.
_Key: TypeAlias = tuple[int, str, tuple[int, ...], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class _Narrow:
    """A constant that is stored in another form."""

    graph: ir.Graph
    value: ir.Value
    name: str
    codes: Array
    form: Literal["int4", "planes", ""]


def _form_of(value: ir.Value, codes: Array) -> Literal["int4", "planes", ""]:
    """Return how a constant is stored best; empty where that is as it is."""
    if codes.dtype != np.int8 or codes.ndim < 2 or value.is_graph_output() or not value.uses():
        return ""
    by_int4, by_planes = _saved(codes.size, bits_of(codes))
    if max(by_int4, by_planes) <= 0:
        return ""
    return "int4" if by_int4 >= by_planes else "planes"


def _saved(count: int, bits: int) -> tuple[int, int]:
    """Return how many bytes it spares to store codes as INT4, and as planes."""
    as_int4 = count // 2 - _CAST_BYTES if bits <= 4 else 0
    return as_int4, count * (8 - bits) // 8 - _PLANES_BYTES


class _Widening:
    """The nodes that make int8 codes of what is stored; they come first in the graph."""

    def __init__(
        self, writer: GraphWriter, narrow: _Narrow, name: str, shared: dict[_Key, ir.Value]
    ) -> None:
        """Begin.

        Args:
            writer: writes into the model.
            narrow: what is stored.
            name: what new values are called after: a short one, for there are many.
            shared: constants that weights have in common, to which others are added.
        """
        self.writer = writer
        self.narrow = narrow
        self.name = name
        self.shared = shared
        self.first = narrow.graph[0]

    def codes(self) -> ir.Value:
        """Return the int8 codes."""
        return self._cast() if self.narrow.form == "int4" else self._planes()

    def _cast(self) -> ir.Value:
        """Return codes that are stored as INT4."""
        stored = self._stored(self.narrow.codes, INT4)
        return self._insert("Cast", [stored], "int8", to=int(ir.DataType.INT8))

    def _planes(self) -> ir.Value:
        """Return codes of which the file has the first bits of all, then the second ones, ...

        Eight bits are in a byte, the first in the lowest place. The last bit counts negative, as in
        two's complement.
        """
        codes, flat = self.narrow.codes, self.narrow.codes.reshape(-1)
        bits = bits_of(codes)
        planes = [np.packbits((flat >> i) & 1, bitorder="little") for i in range(bits)]
        value = np.array([2.0**i for i in range(bits - 1)] + [-(2.0 ** (bits - 1))], np.float32)
        stored = self._stored(np.stack(planes)[:, :, None])
        apart = self._insert(
            "BitShift",
            [stored, self._constant("places", np.arange(8, dtype=np.uint8))],
            "shifted",
            direction="RIGHT",
        )
        ones = self._insert("BitwiseAnd", [apart, self._constant("one", np.uint8(1))], "bits")
        ones = self._insert("Cast", [ones], "float", to=int(ir.DataType.FLOAT))
        parts = self._insert("Mul", [ones, self._constant("value", value[:, None, None])], "parts")
        first = self._constant("axis", np.array([0], np.int64))
        summed = self._insert("ReduceSum", [parts, first], "sum", keepdims=0)
        widened = self._insert("Cast", [summed], "padded", to=int(ir.DataType.INT8))
        if flat.size % 8:
            widened = self._insert("Reshape", [widened, self._ints("row", [-1])], "row")
            bounds = [self._ints("start", [0]), self._ints("end", [flat.size])]
            widened = self._insert("Slice", [widened, *bounds], "cut")
        return self._insert("Reshape", [widened, self._ints("shape", codes.shape)], "int8")

    def _insert(
        self, op_type: str, inputs: list[ir.Value], what: str, **attributes: int | str
    ) -> ir.Value:
        return self.writer.insert(self.first, op_type, inputs, f"{self.name}/{what}", attributes)

    def _constant(self, what: str, array: Array | np.generic) -> ir.Value:
        array = np.asarray(array)
        key = id(self.narrow.graph), what, array.shape, array.tobytes()
        if key not in self.shared:
            self.shared[key] = self.writer.constant(self.narrow.graph, what, array)
        return self.shared[key]

    def _stored(self, array: Array, qtype: QType | None = None) -> ir.Value:
        return self.writer.constant(self.narrow.graph, self.narrow.name, array, qtype)

    def _ints(self, what: str, numbers: list[int] | tuple[int, ...]) -> ir.Value:
        return self._constant(what, np.array(numbers, np.int64))
