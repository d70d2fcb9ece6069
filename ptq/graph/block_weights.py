"""What a weight in blocks becomes in a graph: the constants that kernels read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from ptq.errors import ConfigError
from ptq.graph.passes.edit import Array
from ptq.graph.scheme import Linear, quantized
from ptq.graph.stored_codes import StoredCodes
from ptq.graph.writer import GraphWriter, label
from ptq.numerics.affine import QTensor
from ptq.numerics.block_tensor import FloatTensor, Stored, offset_of
from ptq.numerics.blocks import BlockFormat, pack
from ptq.numerics.qtype import UINT8, QType

#: Constants as a kernel reads them: codes, scales, of an asymmetric grid zero points, and offsets,
#: if there are any; of a product these have a row for each block.
Parts = tuple[ir.Value | None, ...]

_WIDE = {ir.DataType.INT4: ir.DataType.INT8, ir.DataType.UINT4: ir.DataType.UINT8}

#: How one weight is quantized: its name, its values (a matrix), the blocks and the grid.
QuantizeBlocks = Callable[[str, Array, BlockFormat], QTensor]

#: Bits of a code. Kernels have codes of 2, 4 and 8; others are widened to 8 at load.
BLOCK_BITS = (2, 3, 4, 5, 6, 8)
_KERNEL_BITS = (2, 4, 8)

#: The least block of MatMulNBits and GatherBlockQuantized.
_LEAST_BLOCK = 16


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """In what form weights are written.

    Attributes:
        bits: of a code.
        block: how many weights along the inner axis share a scale: a power of two, 16 or more.
        symmetric: whether the zero point is the middle of the grid and not stored.
        portable: whether to use standard operators only, for other runtimes than onnxruntime.
        kernels: whether products and tables are computed from codes. Otherwise all weights are
            unpacked when the model is loaded: then it runs as fast and as exactly as the float
            model, and takes as much memory.
        widths: the bits of nodes whose weights have another number of them.
        accuracy_level: what MatMulNBits may do to activations: 4 rounds them to 8 bits in blocks,
            0 and 1 leave them in float, at a fraction of the speed with 2 and 8 bits.
        offsets: whether a real number is added to each block, with which kernels multiply apart.

    Raises:
        ConfigError: an option has no such value.
    """

    bits: int = 4
    block: int = 32
    symmetric: bool = True
    portable: bool = False
    kernels: bool = True
    accuracy_level: Literal[0, 1, 4] = 4
    widths: Mapping[str, int] = field(default_factory=dict)
    offsets: bool = False

    def __post_init__(self) -> None:
        for bits in (self.bits, *self.widths.values()):
            if bits not in BLOCK_BITS:
                listed = ", ".join(map(str, BLOCK_BITS[:-1]))
                raise ConfigError(
                    f"weights of {bits} bits are not supported; use {listed} or {BLOCK_BITS[-1]}"
                )
        if self.block < _LEAST_BLOCK or self.block & (self.block - 1):
            raise ConfigError(
                f"a block of {self.block} weights is not supported; use a power of two from "
                f"{_LEAST_BLOCK} up"
            )
        if self.accuracy_level not in (0, 1, 4):
            raise ConfigError(f"accuracy level {self.accuracy_level} is unknown; use 0, 1 or 4")

    @property
    def qtype(self) -> QType:
        """The grid of the codes, unsigned as the kernels want it."""
        return QType(self.bits, signed=False)

    def of(self, node: ir.Node) -> WeightFormat:
        """Return the form of the weight of one node."""
        return replace(self, bits=self.widths.get(node.name or "", self.bits))

    def along(self, axis: int) -> BlockFormat:
        """Return the blocks along an axis."""
        return BlockFormat(self.qtype, axis, self.block, self.symmetric)


class BlockWeights:
    """Quantizes weights, and writes what was made of them once for all readers."""

    def __init__(
        self, writer: GraphWriter, form: WeightFormat, quantize_weight: QuantizeBlocks
    ) -> None:
        self._writer = writer
        self._form = form
        self._quantize_weight = quantize_weight
        self._known: dict[tuple[int, BlockFormat], QTensor] = {}
        self._made: dict[tuple[int, int, str], Parts] = {}

    def __len__(self) -> int:
        """Return how many weights were quantized."""
        return len(self._known)

    def nbits(self, node: ir.Node, linear: Linear) -> Parts:
        """Return codes, scales and zero points as MatMulNBits reads them, and offsets."""
        return self._once(linear.weight, linear.inner, "nbits", lambda: self._nbits(node, linear))

    def columns(self, node: ir.Node, linear: Linear) -> Parts:
        """Return signed codes, scales and zero points of the matrix ``(inner, outer)``, ..."""
        return self._once(
            linear.weight, linear.inner, "columns", lambda: self._columns(node, linear)
        )

    def kernel_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        """Return codes, scales and zero points as GatherBlockQuantized reads them, and offsets."""
        return self._once(weight, 1, "table", lambda: self._kernel_table(node, weight, table))

    def portable_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        """Return codes of 8 bits, scales, zero points and offsets, of which Gather reads rows.

        Gather takes no 4 bits: such codes are widened when the model is loaded.
        """
        return self._once(weight, 1, "wide", lambda: self._portable_table(node, weight, table))

    def quantized(
        self, value: ir.Value, node: ir.Node | None, array: Array, layout: BlockFormat
    ) -> QTensor:
        """Return a weight as a matrix of codes.

        Raises:
            CalibrationError: the weight is not finite.
        """
        key = id(value), layout
        if key not in self._known:
            name = value.name or ""
            tensor = quantized(value, node, lambda: self._quantize_weight(name, array, layout))
            params, floats = tensor.qparams, isinstance(tensor, FloatTensor)
            if layout.symmetric and not floats and np.any(params.zero_point != params.qtype.middle):
                raise ValueError(f"the zero points of '{name}' would be lost")
            self._known[key] = tensor
        return self._known[key]

    def product(self, node: ir.Node, linear: Linear) -> QTensor:
        """Return the weight of a product as a matrix of codes."""
        layout = self._form.of(node).along(linear.inner)
        return self.quantized(linear.weight, node, linear.array, layout)

    def _once(self, weight: ir.Value, axis: int, kind: str, make: Callable[[], Parts]) -> Parts:
        key = id(weight), axis, kind
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    # -- layouts --------------------------------------------------------------------------------

    def _nbits(self, node: ir.Node, linear: Linear) -> Parts:
        block = self._form.block
        tensor = self.product(node, linear)
        codes, zero_point = (
            a if linear.inner else a.T for a in (tensor.codes, tensor.qparams.zero_point)
        )
        offset = offset_of(tensor)
        if offset is not None and not linear.inner:
            offset = offset.T
        outer, count = zero_point.shape
        rest = np.repeat(zero_point[:, -1:], count * block - codes.shape[1], axis=1)
        blocks = np.concatenate([codes, rest], axis=1).reshape(outer, count, block)
        parts = self._stored(linear.weight, tensor)
        bits = kernel_bits(tensor)
        if is_native(tensor):
            stored = parts.constant("codes", pack(blocks, bits))
        else:
            stored = self._widened_codes(parts, blocks, tensor, signed=False)
        result = (stored, self._scale(parts, tensor, turned=not linear.inner, columns=False))
        if not self._form.symmetric:
            zero_point = zero_point + (_shift(tensor) if bits == 8 else 0)
            packed = pack(zero_point.astype(np.uint8), bits)
            return (*result, parts.constant("zero_point", packed), None)
        return (*result, None, self._offset(parts, tensor, offset, columns=True))

    def _columns(self, node: ir.Node, linear: Linear) -> Parts:
        tensor = self.product(node, linear)
        codes, zero_point, qtype = self._signed(tensor)
        offset = offset_of(tensor)
        if linear.inner:
            codes, zero_point = codes.T, zero_point.T
            offset = None if offset is None else offset.T
        parts = self._stored(linear.weight, tensor)
        if is_native(tensor):
            stored = parts.integers("codes", codes, qtype)
        else:
            stored = self._widened_codes(parts, codes, tensor, signed=True)
        result = (stored, self._scale(parts, tensor, turned=bool(linear.inner), columns=True))
        if self._form.symmetric:
            turned = None if offset is None else offset.T
            return (*result, None, self._offset(parts, tensor, turned, columns=True))
        wide = qtype if is_native(tensor) else UINT8
        return (*result, parts.integers("zero_point", zero_point, wide), None)

    def _kernel_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        tensor = self.quantized(weight, node, table, self._form.of(node).along(1))
        codes, zero_point, bits = tensor.codes, tensor.qparams.zero_point, kernel_bits(tensor)
        parts, qtype = self._stored(weight, tensor), None
        if not is_native(tensor):
            stored = self._widened_codes(parts, codes, tensor, signed=False)
            zero_point = (zero_point.astype(np.int16) + _shift(tensor)).astype(np.uint8)
        elif bits == 4:  # a type of its own, which fits rows of any length
            codes, zero_point, qtype = self._signed(tensor)
            stored = parts.integers("codes", codes, qtype)
        else:
            stored, zero_point = parts.constant("codes", pack(codes, bits)), pack(zero_point, bits)
        scale = self._scale(parts, tensor, turned=False, columns=False)
        zero = None if self._form.symmetric else parts.integers("zero_point", zero_point, qtype)
        return (stored, scale, zero, self._offset(parts, tensor, offset_of(tensor), columns=False))

    def _portable_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        tensor = self.quantized(weight, node, table, self._form.of(node).along(1))
        codes, zero_point, qtype = self._signed(tensor)
        parts = self._stored(weight, tensor)
        if is_native(tensor):
            stored = parts.integers("codes", codes, qtype)
        else:
            stored, qtype = self._widened_codes(parts, codes, tensor, signed=True), UINT8
        scale = self._scale(parts, tensor, turned=False, columns=False)
        zero = None if self._form.symmetric else parts.integers("zero_point", zero_point, qtype)
        offset = self._offset(parts, tensor, offset_of(tensor), columns=False)
        return self._widened(weight, stored), scale, self._widened(weight, zero), offset

    def _widened(self, weight: ir.Value, value: ir.Value | None) -> ir.Value | None:
        if value is None or value.dtype not in _WIDE:
            return value
        assert weight.graph is not None
        attributes = {"to": int(_WIDE[value.dtype])}
        return self._writer.insert(
            weight.graph[0], "Cast", [value], f"{value.name}_8_bits", attributes
        )

    def _signed(self, tensor: QTensor) -> tuple[Array, Array, QType]:
        """Return codes and zero points; of a symmetric grid, signed about zero point 0."""
        codes, zero_point = tensor.codes, tensor.qparams.zero_point
        qtype = tensor.qparams.qtype
        if not self._form.symmetric or qtype.signed:
            return codes, zero_point, qtype
        middle = np.int16(qtype.middle)
        return codes - middle, zero_point - middle, QType(qtype.bits, signed=True)

    def _widened_codes(
        self, parts: _Parts, codes: Array, tensor: QTensor, *, signed: bool
    ) -> ir.Value:
        """Return codes of 8 bits, of which the file has an index each; signed ones about 0.

        Args:
            parts: writes them.
            codes: of the tensor, or about 0, in any shape.
            tensor: the tensor.
            signed: whether they are to be about 0, where the form is symmetric.
        """
        about_0 = signed and self._form.symmetric
        if tensor.levels is not None:
            table = tensor.levels.reshape(-1, tensor.levels.shape[-1])[0].astype(np.int16)
            index = np.searchsorted(table, codes)
        else:
            qtype = tensor.qparams.qtype
            table = np.arange(qtype.levels) - (qtype.middle if about_0 else 0)
            index = codes + (qtype.middle if about_0 else 0)
        if about_0:
            found = table.astype(np.int8)
        else:
            found = (table + (0 if signed else _shift(tensor))).astype(np.uint8)
        return parts.looked_up(index.astype(np.uint8), tensor.bits, found)

    def _scale(self, parts: _Parts, tensor: QTensor, *, turned: bool, columns: bool) -> ir.Value:
        """Return scales.

        Args:
            parts: writes them.
            tensor: the tensor.
            turned: whether the tensor has them the other way round than they are wanted.
            columns: whether they are wanted with the blocks along the first axis.
        """
        scale = tensor.qparams.scale
        stored: Stored = getattr(tensor, "stored_scale", None)
        return parts.scales(scale.T if turned else scale, stored, "scale", turned=columns)

    def _offset(
        self, parts: _Parts, tensor: QTensor, offset: Array | None, *, columns: bool
    ) -> ir.Value | None:
        """Return offsets, given with the blocks along the last axis; wanted so, or as columns."""
        if offset is None:
            return None
        stored: Stored = getattr(tensor, "stored_offset", None)
        wanted = np.ascontiguousarray(offset.T if columns else offset)
        return parts.scales(wanted, stored, "offset", turned=columns)

    def _stored(self, weight: ir.Value, tensor: QTensor) -> _Parts:
        assert weight.graph is not None
        return _Parts(self._writer, weight.graph, label(weight.name))


class _Parts(StoredCodes):
    """The constants of one weight, in the graph of the weight."""

    def integers(self, name: str, array: Array, qtype: QType | None) -> ir.Value:
        """Return codes, of a grid below 8 bits in the type of that width."""
        return self.writer.constant(self.graph, f"{self.name}/{name}", array, qtype)


def is_native(tensor: QTensor) -> bool:
    """Whether kernels read the codes of a tensor as they are."""
    return tensor.levels is None and tensor.bits in _KERNEL_BITS


def kernel_bits(tensor: QTensor) -> int:
    """Return how many bits the codes have that kernels read."""
    return tensor.bits if is_native(tensor) else 8


def _shift(tensor: QTensor) -> int:
    """Return what is added to codes that are widened to uint8, for a middle of 128."""
    return 0 if is_native(tensor) else UINT8.middle - tensor.qparams.qtype.middle
