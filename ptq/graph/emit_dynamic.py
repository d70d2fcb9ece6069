"""Quantize activations while the model runs: integer products with constant weights, without data.

What is written are the standard operators that onnxruntime fuses into DynamicQuantizeMatMul, or
into MatMulIntegerToFloat where one DynamicQuantizeLinear serves several products. Only an LSTM
becomes an operator of its own, DynamicQuantizeLSTM.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from ptq.graph.dynamic_lstm import DynamicLstm
from ptq.graph.emit_qdq import QuantizeWeight
from ptq.graph.passes.edit import Array, input_at, is_op
from ptq.graph.scheme import (
    Fates,
    Linear,
    SchemeEmitted,
    float_constants,
    forget_inner_types,
    linear_of,
    quantized,
    table_of,
)
from ptq.graph.unpack import even_blocks, unpack_constants
from ptq.graph.writer import GraphWriter, float_array_of, label, remove_unread
from ptq.numerics.affine import QTensor
from ptq.numerics.blocks import quantize_blocks
from ptq.numerics.qtype import INT8, UINT8
from ptq.weights import weight_quantizer

_FLOAT = int(ir.DataType.FLOAT)

#: Codes and scale; a zero point, which is not 0, would be the third.
_WITHOUT_ZERO_POINT = 2

#: How many weights that are unpacked at load share a scale: more cost accuracy, fewer cost bytes.
_UNPACKED_BLOCK = 128


@dataclass(frozen=True, slots=True)
class DynamicForm:
    """What becomes integer, and how.

    Attributes:
        per_channel: whether every output channel of a weight has a scale of its own.
        convolutions: names of the convolutions to compute in integers. There is no fused kernel,
            so that most are several times slower than in float; name those that were measured.
        tables: whether the rows of embedding tables are kept in 8 bits.
        unpack: whether the weights of what computes in float are kept in 8 bits in the file, and
            unpacked when the model is loaded.
    """

    per_channel: bool = True
    convolutions: Collection[str] = ()
    tables: bool = True
    unpack: bool = True


def emit_dynamic(
    model: ir.Model,
    form: DynamicForm | None = None,
    *,
    quantize_weight: QuantizeWeight | None = None,
    exclude: Mapping[str, str] | None = None,
) -> SchemeEmitted:
    """Rewrite a normalized model, and the bodies in it, in place.

    Args:
        model: the normalized model.
        form: what becomes integer, and how.
        quantize_weight: how the weights of integer kernels are quantized: reader, values,
            output-channel axis, symmetric. By default from the extremes of each channel, which is
            exact where the CPU adds products in 32 bits; for others, give one that keeps pairs of
            codes small.
        exclude: nodes that stay in float, by name, with the reason.

    Raises:
        CalibrationError: a weight is not finite.
    """
    form = form or DynamicForm()
    emitter = _Emitter(model, form, quantize_weight or _extremes(form), exclude or {})
    emitter.rewrite()
    if form.unpack:
        emitter.unpack_the_rest()
    remove_unread(model)
    forget_inner_types(model)
    return emitter.fates.emitted(len(emitter.weights) + len(emitter.lstm) + emitter.count)


def _extremes(form: DynamicForm) -> QuantizeWeight:
    method = weight_quantizer("minmax")

    def quantize(_: str, array: Array, axis: int, symmetric: bool) -> QTensor:
        return method.quantize(
            array, INT8, axis=axis if form.per_channel else None, symmetric=symmetric
        )

    return quantize


class _Emitter:
    """Holds the model while it is rewritten."""

    def __init__(
        self,
        model: ir.Model,
        form: DynamicForm,
        quantize_weight: QuantizeWeight,
        exclude: Mapping[str, str],
    ) -> None:
        self.form = form
        self.quantize_weight = quantize_weight
        self.fates = Fates(model, exclude)
        self.writer = GraphWriter(model)
        self.constants = float_constants(model)  # before there are constants of ours
        # by tensor, and the graph in which it is read
        self.activations: dict[tuple[int, int], tuple[ir.Value, ir.Value, ir.Value]] = {}
        self.weights: dict[tuple[int, str], tuple[ir.Value, ...]] = {}
        self.lstm = DynamicLstm(self.writer, self._quantized)
        self.count = 0  # of those that are unpacked

    def rewrite(self) -> None:
        for node in self.fates.candidates():
            if is_op(node, "MatMul", "Gemm"):
                self._linear(node)
            elif is_op(node, "Conv"):
                self._conv(node)
            elif is_op(node, "LSTM"):
                weight = node.inputs[1]
                if why := self.lstm.rewrite(node):
                    self.fates.stays_float(node, why)
                else:
                    self.fates.becomes_integer(node, weight.name if weight else None)
            elif is_op(node, "Gather") and self.form.tables:
                self._gather(node)
            elif is_op(node, "GRU", "RNN"):
                self.fates.stays_float(
                    node, f"onnxruntime has no integer kernel for {node.op_type}"
                )

    # -- products -------------------------------------------------------------------------------

    def _linear(self, node: ir.Node) -> None:
        linear = linear_of(node)
        if isinstance(linear, str):
            self.fates.stays_float(node, linear)
            return
        parameters = self._matrix(node, linear)
        result, heir = self._product(node, "MatMulInteger", linear.x, parameters)
        if linear.bias is not None:
            name = label(node.outputs[0].name)
            result = self.writer.insert(
                node, "Add", [result, self._bias(node, linear)], f"{name}/sum"
            )
        symmetric = len(parameters) == _WITHOUT_ZERO_POINT
        self.fates.becomes_integer(node, linear.weight.name, symmetric=symmetric)
        self.writer.replace(node, [result], heir)

    def _bias(self, node: ir.Node, linear: Linear) -> ir.Value | None:
        """Return the bias as the vector that the fused kernel adds, where it can be one."""
        row, bias = linear.row(linear.bias), linear.bias
        if bias is None or row is None:
            return bias
        assert node.graph is not None
        return self.writer.vector(node.graph, bias, row)

    def _matrix(self, node: ir.Node, linear: Linear) -> tuple[ir.Value, ...]:
        key = id(linear.weight), f"axis {linear.inner}"
        if key not in self.weights:
            outer = 1 - linear.inner
            tensor = self._quantized(linear.weight, node, linear.array, outer)
            codes = tensor.codes.T if linear.inner else tensor.codes
            self.weights[key] = self._parameters(linear.weight, tensor, codes, ())
        return self.weights[key]

    def _parameters(
        self, weight: ir.Value, tensor: QTensor, codes: Array, spread: tuple[int, ...]
    ) -> tuple[ir.Value, ...]:
        """Return codes, scale and, unless it is 0, zero point as initializers.

        Args:
            weight: the float weight.
            tensor: what became of it.
            codes: its codes as the kernel reads them.
            spread: axes of length 1 to put behind that of the scale, so that it broadcasts.
        """
        params = tensor.qparams
        scale = params.scale if params.scale.ndim == 0 else params.scale.reshape(-1, *spread)
        values = [self._beside(weight, "codes", codes), self._beside(weight, "scale", scale)]
        if np.any(params.zero_point):
            values.append(self._beside(weight, "zero_point", params.zero_point))
        return tuple(values)

    def _product(
        self,
        node: ir.Node,
        op_type: str,
        x: ir.Value,
        parameters: tuple[ir.Value, ...],
        attributes: Mapping[str, ir.Attr] | None = None,
    ) -> tuple[ir.Value, ir.Node]:
        """Insert the integer product and its way back to float, in the layout that fuses.

        Returns:
            The float product, and the node that multiplies integers.
        """
        codes, scale, *weight_zero = parameters
        x_codes, x_scale, x_zero = self._activation(node, x)
        name = label(node.outputs[0].name)
        result = self.writer.insert(
            node,
            op_type,
            [x_codes, codes, x_zero, *weight_zero],
            f"{name}/integer",
            attributes,
        )
        heir = result.producer()
        assert heir is not None
        result = self.writer.insert(node, "Cast", [result], f"{name}/steps", {"to": _FLOAT})
        step = self.writer.insert(node, "Mul", [x_scale, scale], f"{name}/scale")
        return self.writer.insert(node, "Mul", [result, step], f"{name}/product"), heir

    def _activation(self, node: ir.Node, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return codes, scale and zero point of a tensor, computed once for all its readers."""
        key = id(node.graph), id(x)
        if key not in self.activations:
            name = label(x.name)
            names = [f"{name}/{part}" for part in ("codes", "scale", "zero_point")]
            codes, scale, zero = self.writer.insert_node(node, "DynamicQuantizeLinear", [x], names)
            self.activations[key] = codes, scale, zero
        return self.activations[key]

    # -- convolutions ---------------------------------------------------------------------------

    def _conv(self, node: ir.Node) -> None:
        if (node.name or "") not in self.form.convolutions:
            self.fates.stays_float(
                node, "integer convolutions are slower, and this one was not named"
            )
            return
        x, weight, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
        array = float_array_of(weight)
        if x is None or weight is None or array is None:
            self.fates.stays_float(node, "the weight is no float32 constant")
            return
        spread = (1,) * (array.ndim - 2)
        key = id(weight), "convolution"
        if key not in self.weights:
            tensor = self._quantized(weight, node, array, 0)
            if np.any(tensor.qparams.zero_point) and tensor.qparams.axis is not None:
                why = "the kernel takes one zero point for all channels"
                self.fates.stays_float(node, why)
                return
            self.weights[key] = self._parameters(weight, tensor, tensor.codes, spread)
        attributes = dict(node.attributes)
        result, heir = self._product(node, "ConvInteger", x, self.weights[key], attributes)
        if bias is not None:
            result = self._added_channels(node, result, bias, spread)
        symmetric = len(self.weights[key]) == _WITHOUT_ZERO_POINT
        self.fates.becomes_integer(node, weight.name, symmetric=symmetric)
        self.writer.replace(node, [result], heir)

    def _added_channels(
        self, node: ir.Node, result: ir.Value, bias: ir.Value, spread: tuple[int, ...]
    ) -> ir.Value:
        """Add a number for each channel, as Conv does and ConvInteger does not."""
        assert node.graph is not None
        name = label(node.outputs[0].name)
        shape = np.array([-1, *spread], np.int64)
        inputs = [bias, self.writer.constant(node.graph, f"{name}/bias_shape", shape)]
        column = self.writer.insert(node, "Reshape", inputs, f"{name}/bias")
        return self.writer.insert(node, "Add", [result, column], f"{name}/sum")

    # -- tables ---------------------------------------------------------------------------------

    def _gather(self, node: ir.Node) -> None:
        """Read rows of codes, and the scales of those rows."""
        table, value = table_of(node), node.inputs[0]
        if isinstance(table, str) or value is None:
            self.fates.stays_float(node, str(table))
            return
        key = id(value), "rows"
        if key not in self.weights:
            # not as the kernels of products want it: these codes are multiplied with nothing
            tensor = quantized(
                value,
                node,
                lambda: weight_quantizer("minmax").quantize(table, INT8, axis=0, symmetric=True),
            )
            self.weights[key] = self._parameters(value, tensor, tensor.codes, (1,))
        codes, scale = self.weights[key]
        name, indices = label(node.outputs[0].name), node.inputs[1]
        rows = self.writer.insert(node, "Gather", [codes, indices], f"{name}/codes")
        scales = self.writer.insert(node, "Gather", [scale, indices], f"{name}/scale")
        steps = self.writer.insert(node, "Cast", [rows], f"{name}/steps", {"to": _FLOAT})
        result = self.writer.insert(node, "Mul", [steps, scales], f"{name}/rows")
        self.fates.becomes_integer(node, value.name)
        self.writer.replace(node, [result], rows.producer())

    # -- unpacked at load -----------------------------------------------------------------------

    def unpack_the_rest(self) -> None:
        """Keep what computes in float in 8 bits in the file."""

        def quantize(value: ir.Value, _: ir.Node, rows: Array) -> QTensor:
            layout = even_blocks(rows.shape[1], UINT8, _UNPACKED_BLOCK, symmetric=True)
            return quantized(value, None, partial(quantize_blocks, rows, layout))

        self.count += unpack_constants(self.writer, self.fates, self.constants, quantize)

    # -- shared ---------------------------------------------------------------------------------

    def _quantized(self, value: ir.Value, node: ir.Node, array: Array, axis: int) -> QTensor:
        return quantized(
            value, node, lambda: self.quantize_weight(node.name or "", array, axis, True)
        )

    def _beside(self, weight: ir.Value, name: str, array: Array) -> ir.Value:
        """Return a new constant in the graph of the weight."""
        assert weight.graph is not None
        return self.writer.constant(weight.graph, f"{label(weight.name)}/{name}", array)
