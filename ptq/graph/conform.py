"""Read a graph with QuantizeLinear and DequantizeLinear, and say where a target would not take it.

Only the graph and the target's description are read, not the plan: what checks the emitter must not
share its mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ptq.graph.grid import Grid, dequantizer_of, quantizer_of
from ptq.graph.passes.edit import Array, constant, input_at, int_attribute, is_op
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.pairs import fits, orders_of
from ptq.numerics.qtype import QType
from ptq.targets import OpRule, Target

#: What may stand between an operator and the QuantizeLinear of its output, if its rule absorbs it.
_ABSORBED = ("Relu", "Clip")


def conformance(model: ir.Model, target: Target) -> tuple[str, ...]:
    """Return what in the main graph does not conform to a target, one line for each finding.

    Args:
        model: a model as `emit_qdq` writes it: scales, zero points and codes are initializers.
        target: what is to run it.
    """
    checker = _Checker(target)
    found = (f"{_called(n)}: {what}" for n in model.graph for what in checker.violations(n))
    return tuple(dict.fromkeys(found))


class _Checker:
    """Holds the target while one node after another is looked at."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.activation = QType.parse(target.activation)
        self.weight = QType.parse(target.weight)

    def violations(self, node: ir.Node) -> Iterator[str]:
        if is_op(node, "QuantizeLinear"):
            yield from self._quantize(node)
        elif is_op(node, "DequantizeLinear"):
            yield from self._dequantize(node)
        elif rule := self._rule(node):
            if rule.role == "linear":
                yield from self._linear(node, rule)
            else:
                yield from self._unweighted(node, rule)
        elif any(_dequantized_constant(v) for v in node.inputs):
            yield f"reads quantized constants, but target '{self.target.name}' has no rule for it"

    # -- conversions ------------------------------------------------------------------------------

    def _quantize(self, node: ir.Node) -> Iterator[str]:
        grid = Grid.of(node)
        yield from self._activation(grid)
        source = _before(node.inputs[0])
        rule = self._rule(source)
        clips = [n for n in node.outputs[0].consumers() if is_op(n, "Clip")]
        if clips and (rule is None or not rule.clips_codes):
            yield "is followed by a Clip on codes, which the target does not run"
        readers = [r for n in (node, *clips) for r in _readers_of_codes(n.outputs[0])]
        if rule is None and not any(self._takes_codes(*r) for r in readers):
            around = source or next((r for r, _ in readers), node)
            yield f"stands at {_called(around)}, for which the target has no rule"

    def _dequantize(self, node: ir.Node) -> Iterator[str]:
        if constant(node.inputs[0]) is not None:
            return
        grid, written = Grid.of(node), Grid.of(quantizer_of(node))
        yield from self._activation(grid)
        rescales = any(r.rescales or r.role == "rescale" for r in self.target.ops.values())
        if not rescales and grid is not None and written is not None and not grid.same(written):
            yield "reads codes with another scale than they were written with"

    def _activation(self, grid: Grid | None) -> Iterator[str]:
        """Check the grid of an activation."""
        if grid is None:
            yield "its scale or zero point is not constant"
            return
        if grid.dtype != self.activation.name:
            yield f"activations are {grid.dtype}; the target takes {self.activation.name}"
        if grid.axis is not None or grid.block_size:
            yield "an activation has more than one scale"
        if self.target.activation_symmetric and np.any(grid.zero_point != self.activation.middle):
            wanted = self.activation.middle
            yield f"an activation has zero point {grid.zero_point}; the target needs {wanted}"

    def _takes_codes(self, node: ir.Node, index: int) -> bool:
        """Whether an operator with a rule takes this input as an activation."""
        rule = self._rule(node)
        if rule is None or rule.role == "rescale":
            return False
        return index == 0 if rule.role == "linear" else not rule.inputs or index < rule.inputs

    # -- operators --------------------------------------------------------------------------------

    def _linear(self, node: ir.Node, rule: OpRule) -> Iterator[str]:
        weight = dequantizer_of(input_at(node, rule.weight or 0))
        if weight is None or constant(weight.inputs[0]) is None:
            return
        grid = Grid.of(weight)
        if grid is None or grid.codes is None:
            yield "the scale or zero point of its weight is not constant"
            return
        yield from self._weight(node, rule, grid)
        activation = dequantizer_of(node.inputs[0])
        if activation is None:
            yield "its weight is quantized, its activation is not"
        elif rule.bias is not None:
            yield from self._bias(node, rule, Grid.of(activation), grid)
        yield from self._attributes(node, rule)
        if rule.output and not _goes_quantized(node.outputs[0], rule):
            yield "its output is not quantized"

    def _weight(self, node: ir.Node, rule: OpRule, grid: Grid) -> Iterator[str]:
        assert grid.codes is not None
        codes, axis = grid.codes, _channel_axis(node, grid.codes.ndim)
        if grid.dtype != self.weight.name:
            yield f"its weight is {grid.dtype}; the target takes {self.weight.name}"
        elif codes.min(initial=0) < self.weight.qmin:
            yield f"its weight has codes below {self.weight.qmin}"
        if grid.block_size:
            yield f"its weight has a scale for each block of {grid.block_size}"
            return
        if grid.axis is not None:
            if not rule.per_channel:
                yield "its weight has a scale for each channel; the target takes one"
            if axis is None or grid.axis % codes.ndim != axis:
                yield f"the scales of its weight are along axis {grid.axis}; channels are on {axis}"
                return
        depthwise = _is_depthwise(node, codes)
        if np.any(grid.zero_point) and not rule.asymmetric:
            yield "its weight has zero points; the target takes none"
        elif np.any(grid.zero_point) and depthwise and not rule.asymmetric_depthwise:
            yield "its weight has zero points, with which depthwise kernels are slow"
        if rule.saturates and grid.dtype == "int8" and not _is_exact(node, codes):
            yield from _saturation(node, grid, axis)

    def _bias(
        self, node: ir.Node, rule: OpRule, activation: Grid | None, weight: Grid
    ) -> Iterator[str]:
        value = input_at(node, rule.bias or 0)
        if value is None:
            return
        dequantizer = dequantizer_of(value)
        if dequantizer is None:
            if rule.integer_bias:
                yield "its bias is float; the target takes int32"
            return
        grid = Grid.of(dequantizer)
        if not rule.integer_bias:
            yield "its bias is quantized; the target takes float"
        elif grid is None or grid.dtype != "int32" or np.any(grid.zero_point):
            yield "its bias is not int32 without zero point"
        elif activation is not None:
            product = (activation.scale * weight.scale).astype(np.float32)
            if not np.array_equal(grid.scale, product):
                yield "the scale of its bias is not that of activation times weight"

    def _unweighted(self, node: ir.Node, rule: OpRule) -> Iterator[str]:
        count = rule.inputs or len(node.inputs)
        sources = [dequantizer_of(v) for v in node.inputs[:count]]
        for source in sources:
            if source is not None and constant(source.inputs[0]) is not None:
                yield from self._activation(Grid.of(source))
        if not all(sources) or not all(_goes_quantized(v, rule) for v in node.outputs):
            return  # in float, whatever the rule would allow
        yield from self._attributes(node, rule)
        if rule.role == "move" and sources[0] is not None:
            given = Grid.of(sources[0])
            for value in node.outputs:
                put = Grid.of(next(iter(value.consumers())))
                if given is not None and put is not None and not given.same(put):
                    yield "moves codes, but its output has another scale than its input"

    def _attributes(self, node: ir.Node, rule: OpRule) -> Iterator[str]:
        for name, wanted in rule.when.items():
            given = node.attributes.get(name)
            if given is not None and given.value != wanted:
                yield f"has {name}={given.value}; the target needs {wanted}"

    def _rule(self, node: ir.Node | None) -> OpRule | None:
        return self.target.ops.get(node.op_type) if node is not None and not node.domain else None


# -- the graph -------------------------------------------------------------------------------------


def _called(node: ir.Node) -> str:
    return f"node '{node.name}' ({node.op_type})"


def _dequantized_constant(value: ir.Value | None) -> bool:
    node = dequantizer_of(value)
    return node is not None and constant(node.inputs[0]) is not None


def _before(value: ir.Value | None) -> ir.Node | None:
    """Return the operator that computes a value, before a Relu or Clip."""
    node = None if value is None else value.producer()
    while node is not None and is_op(node, *_ABSORBED) and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _readers_of_codes(codes: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield what reads the values that codes stand for, with the index of the input."""
    for node in codes.consumers():
        if is_op(node, "DequantizeLinear"):
            yield from ((use.node, use.idx) for use in node.outputs[0].uses())


def _goes_quantized(value: ir.Value, rule: OpRule) -> bool:
    """Whether QuantizeLinear, after a Relu or Clip if the rule has it so, is all that reads it."""
    readers = value.consumers()
    if rule.absorbs and len(readers) == 1 and is_op(readers[0], *_ABSORBED):
        value, readers = readers[0].outputs[0], readers[0].outputs[0].consumers()
    quantized = bool(readers) and all(is_op(n, "QuantizeLinear") for n in readers)
    return quantized and not value.is_graph_output()


def _channel_axis(node: ir.Node, rank: int) -> int | None:
    """Return the output-channel axis of a weight, by the definition of its operator."""
    if is_op(node, "Gemm"):
        return 0 if int_attribute(node, "transB", 0) else 1
    if is_op(node, "MatMul"):
        return 1 if rank == 2 else None
    return 0


def _is_depthwise(node: ir.Node, codes: Array) -> bool:
    return is_op(node, "Conv") and int_attribute(node, "group", 1) > 1 and codes.shape[1] == 1


def _is_exact(node: ir.Node, codes: Array) -> bool:
    """Whether the kernel is the one for depthwise convolutions in two dimensions."""
    one_to_one = len(codes) == int_attribute(node, "group", 1)
    return _is_depthwise(node, codes) and one_to_one and codes.ndim == 4


def _saturation(node: ir.Node, grid: Grid, axis: int | None) -> Iterator[str]:
    """Prove that no pair of products overflows 16 bits."""
    assert grid.codes is not None
    codes = grid.codes
    if axis is None:
        # a batch of matrices: all of their columns are channels
        codes, axis = np.swapaxes(codes, -1, -2).reshape(-1, codes.shape[-2]), 0
    # scales do not matter to the proof
    params = QParams(np.ones((), np.float32), np.zeros((), np.int8), QType(8, signed=True))
    orders = orders_of(codes.ndim, axis, convolution=is_op(node, "Conv"))
    if not fits(QTensor(codes, params), orders):
        yield "its weight has pairs of neighbours whose products saturate"
