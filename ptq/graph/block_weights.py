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
from ptq.graph.writer import GraphWriter, label
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F32
from ptq.numerics.blocks import BlockFormat, pack
from ptq.numerics.qtype import QType

#: Constants as a kernel reads them: codes, scales and, of an asymmetric grid, zero points.
Parts = tuple[ir.Value | None, ...]

_WIDE = {ir.DataType.INT4: ir.DataType.INT8, ir.DataType.UINT4: ir.DataType.UINT8}

#: How one weight is quantized: its name, its values (a matrix), the blocks and the grid.
QuantizeBlocks = Callable[[str, Array, BlockFormat], QTensor]

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

    Raises:
        ConfigError: an option has no such value.
    """

    bits: Literal[2, 4, 8] = 4
    block: int = 32
    symmetric: bool = True
    portable: bool = False
    kernels: bool = True
    accuracy_level: Literal[0, 1, 4] = 4
    widths: Mapping[str, Literal[2, 4, 8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for bits in (self.bits, *self.widths.values()):
            if bits not in (2, 4, 8):
                raise ConfigError(f"weights of {bits} bits are not supported; use 2, 4 or 8")
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
        """Return codes, scales and zero points as MatMulNBits reads them."""
        return self._once(linear.weight, linear.inner, "nbits", lambda: self._nbits(node, linear))

    def columns(self, node: ir.Node, linear: Linear) -> Parts:
        """Return signed codes, scales and zero points of the matrix ``(inner, outer)``."""
        return self._once(
            linear.weight, linear.inner, "columns", lambda: self._columns(node, linear)
        )

    def kernel_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        """Return codes, scales and zero points as GatherBlockQuantized reads them."""
        return self._once(weight, 1, "table", lambda: self._kernel_table(node, weight, table))

    def portable_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        """Return codes of 8 bits, scales and zero points, of which Gather reads rows.

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
            if layout.symmetric and np.any(tensor.qparams.zero_point != layout.qtype.middle):
                raise ValueError(f"the zero points of '{name}' would be lost")
            self._known[key] = tensor
        return self._known[key]

    def _once(self, weight: ir.Value, axis: int, kind: str, make: Callable[[], Parts]) -> Parts:
        key = id(weight), axis, kind
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    # -- layouts --------------------------------------------------------------------------------

    def _nbits(self, node: ir.Node, linear: Linear) -> Parts:
        form = self._form.of(node)
        tensor = self.quantized(linear.weight, node, linear.array, form.along(linear.inner))
        params, bits, block = tensor.qparams, form.bits, form.block
        codes, scale, zero_point = (
            a if linear.inner else a.T for a in (tensor.codes, params.scale, params.zero_point)
        )
        outer, count = scale.shape
        rest = np.repeat(zero_point[:, -1:], count * block - codes.shape[1], axis=1)
        blocks = np.concatenate([codes, rest], axis=1).reshape(outer, count, block)
        return self._parts(linear.weight, (pack(blocks, bits), scale, pack(zero_point, bits)), None)

    def _columns(self, node: ir.Node, linear: Linear) -> Parts:
        layout = self._form.of(node).along(linear.inner)
        tensor = self.quantized(linear.weight, node, linear.array, layout)
        codes, zero_point, qtype = self._signed(tensor)
        arrays = codes, tensor.qparams.scale, zero_point
        if linear.inner:
            arrays = codes.T, tensor.qparams.scale.T, zero_point.T
        return self._parts(linear.weight, arrays, qtype)

    def _kernel_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        form = self._form.of(node)
        tensor = self.quantized(weight, node, table, form.along(1))
        codes, scale, zero_point = tensor.codes, tensor.qparams.scale, tensor.qparams.zero_point
        if form.bits == 4:  # a type of its own, which fits rows of any length
            codes, zero_point, qtype = self._signed(tensor)
            return self._parts(weight, (codes, scale, zero_point), qtype)
        bits = form.bits
        return self._parts(weight, (pack(codes, bits), scale, pack(zero_point, bits)), None)

    def _portable_table(self, node: ir.Node, weight: ir.Value, table: Array) -> Parts:
        tensor = self.quantized(weight, node, table, self._form.of(node).along(1))
        codes, zero_point, qtype = self._signed(tensor)
        parts = self._parts(weight, (codes, tensor.qparams.scale, zero_point), qtype)
        return self._widened(weight, parts[0]), parts[1], self._widened(weight, parts[2])

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
        if not self._form.symmetric:
            return codes, zero_point, qtype
        middle = np.int16(qtype.middle)
        return codes - middle, zero_point - middle, QType(qtype.bits, signed=True)

    def _parts(
        self, weight: ir.Value, arrays: tuple[Array, F32, Array], qtype: QType | None
    ) -> Parts:
        """Return codes, scales and zero points as initializers of the graph of the weight."""
        graph, name = weight.graph, label(weight.name)
        assert graph is not None
        codes, scale, zero_point = arrays
        return (
            self._writer.constant(graph, f"{name}/codes", codes, qtype),
            self._writer.constant(graph, f"{name}/scale", scale),
            None
            if self._form.symmetric
            else self._writer.constant(graph, f"{name}/zero_point", zero_point, qtype),
        )
