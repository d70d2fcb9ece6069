"""Write the weights in 2, 4 or 8 bits; activations stay in float, and no data is needed."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ptq.graph.block_offsets import BlockSums, moved_rows
from ptq.graph.block_weights import BlockWeights, QuantizeBlocks, WeightFormat, kernel_bits
from ptq.graph.passes.edit import Array, is_op, only_user, take_over
from ptq.graph.scheme import (
    Fates,
    Linear,
    SchemeEmitted,
    float_constants,
    forget_inner_types,
    linear_of,
    table_of,
)
from ptq.graph.unpack import even_blocks, unpack_constants
from ptq.graph.writer import CONTRIB, GraphWriter, float_array_of, label, remove_unread
from ptq.numerics.affine import QTensor
from ptq.numerics.blocks import BlockFormat, quantize_blocks

__all__ = ["QuantizeBlocks", "WeightFormat", "emit_weight_only"]


def emit_weight_only(
    model: ir.Model,
    form: WeightFormat,
    *,
    quantize_weight: QuantizeBlocks | None = None,
    exclude: Mapping[str, str] | None = None,
) -> SchemeEmitted:
    """Write the weights of a normalized model in few bits; the model is changed in place.

    Products with a constant matrix become MatMulNBits and tables GatherBlockQuantized, which work
    on the codes; the weights of convolutions and recurrent layers are unpacked when the model is
    loaded. Bodies of If, Loop and Scan are treated likewise.

    Args:
        model: the normalized model.
        form: bits, blocks, and which operators may be used.
        quantize_weight: how a weight is quantized, by default `quantize_blocks`.
        exclude: nodes that stay in float, by name, with the reason.

    Raises:
        CalibrationError: a weight is not finite.
    """
    emitter = _Emitter(model, form, quantize_weight or _to_nearest, exclude or {})
    if form.kernels:
        emitter.use_kernels()
    emitter.unpack_the_rest()
    remove_unread(model)
    forget_inner_types(model)
    return emitter.fates.emitted(len(emitter.weights))


def _to_nearest(_: str, array: Array, layout: BlockFormat) -> QTensor:
    return quantize_blocks(array, layout)


class _Emitter:
    """Holds the model while it is rewritten."""

    def __init__(
        self,
        model: ir.Model,
        form: WeightFormat,
        quantize_weight: QuantizeBlocks,
        exclude: Mapping[str, str],
    ) -> None:
        self.form = form
        self.fates = Fates(model, exclude)
        self.writer = GraphWriter(model)
        self.weights = BlockWeights(self.writer, form, quantize_weight)
        self.sums = BlockSums(self.writer)
        self.constants = float_constants(model)  # before there are constants of ours

    def use_kernels(self) -> None:
        """Let products and tables be computed from codes."""
        for node in self.fates.candidates():
            if is_op(node, "MatMul", "Gemm"):
                linear = linear_of(node)
                if isinstance(linear, str):
                    self.fates.stays_float(node, linear)
                elif self.form.offsets and not _has_blocks(linear):
                    continue  # there are no sums of its blocks to be had: it is unpacked
                elif not self.form.portable:
                    self._matmul_nbits(node, linear)
                elif self.form.of(node).bits > 2 and not _read_inside_and_out(node):
                    # DequantizeLinear knows 2 bits from opset 25 only; those products are unpacked
                    self._behind_dequantize(node, linear)
            elif is_op(node, "Gather"):
                table = table_of(node)
                if isinstance(table, str):
                    self.fates.stays_float(node, table)
                else:
                    self._gather(node, table)

    # -- products -------------------------------------------------------------------------------

    def _matmul_nbits(self, node: ir.Node, linear: Linear) -> None:
        bias, add = linear.bias, None
        if bias is None and (found := _added_row(node, linear)):
            bias, add = found if not self.fates.excluded(found[1]) else (None, None)
        row = linear.row(bias)
        *parts, offset = self.weights.nbits(node, linear)
        inputs = [linear.x, *parts]
        if bias is not None and row is not None:
            assert node.graph is not None
            inputs += [None, self.writer.vector(node.graph, bias, row)]
        while inputs[-1] is None:
            inputs.pop()
        attributes = {
            "K": linear.array.shape[linear.inner],
            "N": linear.channels,
            "bits": kernel_bits(self.weights.product(node, linear)),
            "block_size": self.form.block,
            "accuracy_level": self.form.accuracy_level,
        }
        name = label(node.outputs[0].name)
        [result] = self.writer.insert_node(
            node, "MatMulNBits", inputs, (f"{name}/product",), attributes, domain=CONTRIB
        )
        heir = None if offset is None else result.producer()
        if offset is not None:
            rest = self._rest(node, linear, offset)
            result = self.writer.insert(node, "Add", [result, rest], f"{name}/moved")
        if bias is not None and row is None:
            result = self.writer.insert(node, "Add", [result, bias], f"{name}/sum")
        self.fates.becomes_integer(node, linear.weight.name, symmetric=self.form.symmetric)
        if add is None:
            self.writer.replace(node, [result], heir)
        else:
            self.fates.becomes_integer(add, None)
            self.writer.replace(add, [result], heir)
            self.writer.remove(node, heir or result.producer())

    def _behind_dequantize(self, node: ir.Node, linear: Linear) -> None:
        """Put the weight behind a DequantizeLinear with blocks along the first axis.

        In this form onnxruntime makes a MatMulNBits of it.
        """
        *found, offset = self.weights.columns(node, linear)
        parts = [part for part in found if part is not None]
        attributes = {"axis": 0, "block_size": self.form.block}
        # one for each reader: onnxruntime fuses none that is read twice
        columns = self.writer.insert(
            node, "DequantizeLinear", parts, f"{label(linear.weight.name)}/dequantized", attributes
        )
        node.replace_input_with(1, columns)
        node.attributes.pop("transB", None)
        if offset is not None:
            self._move(node, self._rest(node, linear, offset))
        self.fates.becomes_integer(node, linear.weight.name, symmetric=self.form.symmetric)

    def _rest(self, node: ir.Node, linear: Linear, offset: ir.Value) -> ir.Value:
        """Return what the offsets of the blocks of a weight give."""
        length = linear.array.shape[linear.inner]
        return self.sums.product(node, linear.x, offset, length, self.form.block)

    def _move(self, node: ir.Node, rest: ir.Value) -> None:
        """Add something to what a product puts out, which keeps its name."""
        [old] = node.outputs
        [moved] = self.writer.insert_node(node, "Add", [rest, rest], (f"{label(old.name)}/moved",))
        add = moved.producer()
        assert add is not None and node.graph is not None
        node.graph.remove(add)
        node.graph.insert_after(node, add)
        take_over(old, moved)
        old.name = self.writer.fresh(f"{label(moved.name)}/product")
        add.replace_input_with(0, old)

    # -- tables ---------------------------------------------------------------------------------

    def _gather(self, node: ir.Node, table: Array) -> None:
        weight, indices = node.inputs[0], node.inputs[1]
        assert weight is not None
        form = self.form.of(node)
        if form.bits == 2 and (self.form.portable or table.shape[1] % 4):
            # the kernel would put out the codes that fill up the last byte, too
            return
        rank = None if indices is None or indices.shape is None else len(indices.shape)
        if self.form.offsets and (rank is None or table.shape[1] % self.form.block):
            return  # there are no whole blocks that offsets could be added to: it is unpacked
        name, block, heir = label(node.outputs[0].name), self.form.block, None
        if self.form.portable:
            *parts, offset = self.weights.portable_table(node, weight, table)
            rows = [
                self.writer.insert(node, "Gather", [part, indices], f"{name}/{what}")
                for part, what in zip(parts, ("codes", "scale", "zero_point"), strict=True)
                if part is not None
            ]
            heir = rows[0].producer()
            attributes = {"axis": -1, "block_size": block}
            result = self.writer.insert(node, "DequantizeLinear", rows, f"{name}/rows", attributes)
        else:
            codes, *others, offset = self.weights.kernel_table(node, weight, table)
            inputs = [codes, indices, *(part for part in others if part is not None)]
            attributes = {"block_size": block, "gather_axis": 0, "quantize_axis": 1}
            attributes["bits"] = kernel_bits(
                self.weights.quantized(weight, node, table, form.along(1))
            )
            [result] = self.writer.insert_node(
                node, "GatherBlockQuantized", inputs, (f"{name}/rows",), attributes, domain=CONTRIB
            )
        if offset is not None:
            assert rank is not None
            heir = heir or result.producer()
            blocks = table.shape[1] // block, block
            result = moved_rows(self.writer, node, result, offset, rank=rank, blocks=blocks)
        self.fates.becomes_integer(node, weight.name, symmetric=self.form.symmetric)
        self.writer.replace(node, [result], heir)

    # -- unpacked at load -----------------------------------------------------------------------

    def unpack_the_rest(self) -> None:
        """Write what no kernel reads from codes in few bits, and unpack it at load."""

        def quantize(value: ir.Value, node: ir.Node, rows: Array) -> QTensor:
            form = self.form.of(node)
            layout = even_blocks(rows.shape[1], form.qtype, form.block, symmetric=form.symmetric)
            return self.weights.quantized(value, None, rows, layout)

        unpack_constants(self.writer, self.fates, self.constants, quantize)


def _has_blocks(linear: Linear) -> bool:
    """Whether it is known how to cut what a product reads into blocks."""
    return linear.x.shape is not None


def _read_inside_and_out(node: ir.Node) -> bool:
    """Whether the product is an output of the graph and read in it: onnxruntime fuses none such."""
    [value] = node.outputs
    return bool(value.is_graph_output() and value.uses())


def _added_row(node: ir.Node, linear: Linear) -> tuple[ir.Value, ir.Node] | None:
    """Return the constant row that is added to a product, and the Add that does it."""
    add = only_user(node.outputs[0])
    if add is None or not is_op(add, "Add") or add.graph is not node.graph:
        return None
    value = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    array = float_array_of(value)
    rank = 1 if linear.x.shape is None else len(linear.x.shape)
    # of a higher rank, it would raise that of the sum
    if value is None or array is None or array.ndim > rank or linear.row(value) is None:
        return None
    return value, add
