"""Examine one operator: can it become an integer kernel, by itself, and why not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import msgspec
import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import constant, input_at, rank, scalar
from ptq.graph.site import Site, gate_of, is_standard
from ptq.graph.tables import table_site
from ptq.targets import OpRule, Target

#: Defaults of the attributes that target rules ask about (ONNX operator specifications).
ATTRIBUTE_DEFAULTS: dict[tuple[str, str], int | float | str] = {
    ("Gemm", "alpha"): 1.0,
    ("Gemm", "beta"): 1.0,
    ("Gemm", "transA"): 0,
    ("Resize", "mode"): "nearest",
}

#: Factors that leave every sensible scale a normal float32.
_LEAST_FACTOR, _LARGEST_FACTOR = 2.0**-40, 2.0**40


class Examiner:
    """What every examination asks about.

    Args:
        graph: the graph that the nodes are of.
        target: what the backend runs.
        op_types: if any are given, the only operator types that may become integer.
        keep_float: nodes that stay in float, with the reason.
        dyadic: whether scales are powers of two, and must stay so.
    """

    def __init__(
        self,
        graph: ir.Graph,
        target: Target,
        op_types: Set[str],
        keep_float: Mapping[str, str],
        *,
        dyadic: bool,
    ) -> None:
        self.target = target
        self.op_types = op_types
        self.keep_float = keep_float
        self.dyadic = dyadic
        self.outputs = {id(v) for v in graph.outputs}

    def examine(self, node: ir.Node) -> Site | str:
        """Return the site that the node could be, or the reason why it can be none."""
        if not is_standard(node):
            return f"operator of domain '{node.domain}'"
        rule = self.target.ops.get(node.op_type)
        if rule is None:
            default = f"no integer kernel on target '{self.target.name}'"
            return self.target.left_float.get(node.op_type, default)
        if why := self.keep_float.get(node.name or ""):
            return why
        if self.op_types and node.op_type not in self.op_types:
            return "not among --op-types"
        for attribute, wanted in rule.when.items():
            given = _attribute(node, attribute, ATTRIBUTE_DEFAULTS[node.op_type, attribute])
            if given != wanted:
                return f"attribute {attribute}={given}; the kernel needs {wanted}"
        if rule.role == "linear":
            return self._linear(node, rule)
        if rule.role == "table":
            return table_site(node, rule)
        gate = gate_of(node)
        if gate is not None and (self.dyadic or gate.alpha <= 0.0):
            return "its slope cannot become part of the scale"
        factor = self._factor(node) if rule.rescales or rule.role == "rescale" else None
        if factor is not None:
            as_scale = msgspec.structs.replace(rule, role="rescale", absorbs=False, inputs=1)
            found = _rescale(node, as_scale)
            return replace(found, factor=factor) if isinstance(found, Site) else found
        if rule.role == "rescale":
            return "only a positive constant can become part of the scale"
        return self._unweighted(node, rule)

    def _linear(self, node: ir.Node, rule: OpRule) -> Site | str:
        x, weight = node.inputs[0], node.inputs[rule.weight or 0]
        if x is None or weight is None:
            return "an input is missing"
        if not weight.is_initializer() or weight.const_value is None:
            return "the weight is not constant"
        if weight.dtype != ir.DataType.FLOAT:
            return f"the weight is {weight.dtype}, not float32"
        if x.is_initializer():
            return "both operands are constant"
        bias = None if rule.bias is None else input_at(node, rule.bias)
        if bias is not None and not bias.is_initializer():
            return "the bias is not constant"
        dims = len(weight.const_value.shape)
        if dims < 2:
            return "the weight is a vector"
        axis = _weight_axis(node, dims)
        shape = weight.const_value.shape.numpy()
        if axis is not None and not _per_channel(bias, shape[axis]):
            return "the bias is not one value per output channel"
        if not rule.per_channel:
            axis = None
        absorbed = self._absorbable(node, rule)
        return Site(
            node=node,
            rule=rule,
            activations=(x,),
            weight=weight,
            bias=bias,
            absorbed=absorbed,
            outputs=((absorbed or node).outputs[0],),
            requantize=True,
            weight_axis=axis,
            depthwise=_depthwise(node, weight),
        )

    def _unweighted(self, node: ir.Node, rule: OpRule) -> Site | str:
        count = rule.inputs or len(node.inputs)
        activations = tuple(v for v in node.inputs[:count] if v is not None)
        if len(activations) != len(node.inputs[:count]):
            return "an input is missing"
        if why := _not_float32(activations, node.outputs):
            return why
        for value in activations:
            array = constant(value)
            if array is not None and array.size != 1 and rule.role != "elementwise":
                return "an operand is a constant array"
            if array is not None and not (array.size and np.isfinite(array).all()):
                return "an operand is an empty array, or not finite"
        if _adds_bias(node):
            return "the bias of a MatMul is added in float"
        if all(v.is_initializer() for v in activations):
            return "all operands are constant"
        if _attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
            return "the kernel would take extrapolation_value for a code"
        if rule.fuses:
            merged = next((v for v in activations if self._is_merged(v)), None)
            activations = tuple(v for v in activations if v is not merged)
        absorbed = self._absorbable(node, rule)
        outputs = (absorbed.outputs[0],) if absorbed else tuple(node.outputs)
        factor, shift = _affine(node)
        return Site(
            node=node,
            rule=rule,
            activations=activations,
            weight=None,
            bias=None,
            absorbed=absorbed,
            outputs=outputs,
            requantize=True,
            factor=factor,
            shift=shift,
        )

    def _is_merged(self, value: ir.Value) -> bool:
        """Whether a linear operator computes the value, for this reader only."""
        producer = value.producer()
        rule = None if producer is None else self.target.ops.get(producer.op_type)
        alone = len(value.uses()) == 1 and id(value) not in self.outputs
        return alone and rule is not None and rule.role == "linear"

    def _factor(self, node: ir.Node) -> float | None:
        """Return the factor of a Mul or Div by a constant that can become part of a scale."""
        operand = scalar(input_at(node, 1))
        if operand is None and node.op_type == "Mul":
            operand = scalar(input_at(node, 0))
        if operand is None or not operand > 0 or not math.isfinite(operand):
            return None
        factor = 1.0 / operand if node.op_type == "Div" else operand
        if not _LEAST_FACTOR <= factor <= _LARGEST_FACTOR:
            return None
        return None if self.dyadic and math.frexp(factor)[0] != 0.5 else factor

    def _absorbable(self, node: ir.Node, rule: OpRule) -> ir.Node | None:
        """Return the Relu or Clip that is the only reader of the node's only output."""
        if not rule.absorbs or len(node.outputs) != 1 or id(node.outputs[0]) in self.outputs:
            return None
        consumers = node.outputs[0].consumers()
        if len(consumers) != 1:
            return None
        after = consumers[0]
        # a body graph of an If or Loop may be the reader: only nodes of this graph can be absorbed
        if after.graph is not node.graph or not is_standard(after):
            return None
        if (after.name or "") in self.keep_float:
            return None
        if after.op_type == "Relu" or self._absorbs_gate(node, rule, after):
            return after
        if after.op_type == "Clip" and _clips_to_grid(after):
            return after
        return None

    def _absorbs_gate(self, node: ir.Node, rule: OpRule, after: ir.Node) -> bool:
        """Return whether a bias and a scale make a HardSigmoid of what the operator computes."""
        gate = gate_of(after)
        if gate is None or after.op_type != "HardSigmoid" or rule.bias is None or self.dyadic:
            return False
        biased = input_at(node, rule.bias) is not None
        return biased and gate.alpha > 0.0 and rule.clips_codes and rule.integer_bias


def _adds_bias(node: ir.Node) -> bool:
    """Whether an Add adds a vector to a MatMul by a constant, of which the result can be float.

    Requantizing it first would cost precision, and gain nothing.
    """
    if node.op_type != "Add":
        return False
    for index in (0, 1):
        bias, product = constant(node.inputs[index]), node.inputs[1 - index]
        before = None if product is None else product.producer()
        if bias is None or before is None or bias.size != max(bias.shape, default=0):
            continue
        if (
            before.op_type == "MatMul"
            and is_standard(before)
            and constant(before.inputs[1]) is not None
        ):
            return True
    return False


def _affine(node: ir.Node) -> tuple[float, float]:
    """Return the factor and the shift of an Add of one number, or of the sum in a gate."""
    gate = gate_of(node)
    if gate is not None:
        return gate.alpha, gate.beta
    if node.op_type == "Add":
        for index in (0, 1):
            number, other = scalar(node.inputs[index]), node.inputs[1 - index]
            if number is not None and (rank(node.inputs[index]) or 0) <= (rank(other) or 0):
                return 1.0, number
    return 1.0, 0.0


def _rescale(node: ir.Node, rule: OpRule) -> Site | str:
    """Return the site of a Mul or Div by a constant, which is one of its two operands."""
    x, operand = node.inputs[0], node.inputs[1]
    if x is not None and x.is_initializer():
        x, operand = operand, x
    if x is None or operand is None:
        return "an input is missing"
    if x.is_initializer():
        return "all operands are constant"
    if why := _not_float32((x, operand), node.outputs):
        return why
    # an operand of more dimensions than the tensor adds some to the output
    if (rank(operand) or 0) > (rank(x) or 0):
        return "the constant has more dimensions than the tensor"
    return Site(
        node=node,
        rule=rule,
        activations=(x,),
        weight=None,
        bias=None,
        absorbed=None,
        outputs=tuple(node.outputs),
        requantize=True,
    )


def _not_float32(read: Sequence[ir.Value], put_out: Sequence[ir.Value]) -> str:
    for value in read:
        if value.dtype not in (ir.DataType.FLOAT, None):
            return f"works on {value.dtype}, not on float32"
    for value in put_out:
        if value.dtype not in (ir.DataType.FLOAT, None):
            return f"puts out {value.dtype}, not only float32"
    return ""


def _clips_to_grid(clip: ir.Node) -> bool:
    """Whether the clip is constant and its range holds 0: then quantizing can replace it."""
    lo, hi = (scalar(input_at(clip, i)) for i in (1, 2))
    if input_at(clip, 1) is not None and lo is None:
        return False
    if input_at(clip, 2) is not None and hi is None:
        return False
    return (lo is None or lo <= 0.0) and (hi is None or hi > 0.0)


def _weight_axis(node: ir.Node, dims: int) -> int | None:
    """The output-channel axis: 0 for Conv, by transB for Gemm, the last for MatMul of a matrix.

    A batch of matrices has one scale: with more, onnxruntime loads the model and fails to run it.
    """
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul":
        return 1 if dims == 2 else None
    return 0


def _per_channel(bias: ir.Value | None, channels: int) -> bool:
    """Whether the bias, if there is one, is a vector or a row over the output channels."""
    if bias is None or bias.const_value is None:
        return True
    shape = tuple(bias.const_value.shape.numpy())
    return shape[-1:] == (channels,) and bias.const_value.size == channels


def _depthwise(node: ir.Node, weight: ir.Value) -> bool:
    array = constant(weight)
    grouped = _attribute(node, "group", 1) != 1
    return node.op_type == "Conv" and grouped and array is not None and array.shape[1] == 1


def _attribute(node: ir.Node, name: str, default: float | str) -> float | str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value
