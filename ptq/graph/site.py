"""What a site is: one operator that becomes an integer kernel, and what it reads and puts out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.passes.edit import float_attribute, input_at, scalar
from ptq.targets import OpRule


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One operator that becomes an integer kernel.

    Attributes:
        node: the operator.
        rule: the target's rule for it.
        activations: its quantized inputs; constants of elementwise operators are among them.
        weight: the constant weight of a linear operator.
        bias: the constant bias, where there is one.
        absorbed: the Relu or Clip that the requantization does.
        outputs: the tensors to requantize, after the absorbed activation function.
        requantize: whether the outputs are quantized.
        weight_axis: the output-channel axis of the weight; ``None`` where the kernel takes one
            scale only.
        depthwise: whether it is a convolution with one input channel per group.
        factor: what it multiplies its tensor by, where that and a shift is all it does: then the
            codes can be those of the tensor, with another scale and zero point.
        shift: what it then adds.
    """

    node: ir.Node
    rule: OpRule
    activations: tuple[ir.Value, ...]
    weight: ir.Value | None
    bias: ir.Value | None
    absorbed: ir.Node | None
    outputs: tuple[ir.Value, ...]
    requantize: bool
    weight_axis: int | None = None
    depthwise: bool = False
    factor: float = 1.0
    shift: float = 0.0

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name or ""

    @property
    def tensor(self) -> ir.Value:
        """The first activation that is no constant."""
        return next(v for v in self.activations if not v.is_initializer())


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """The sites of a graph in graph order, and the reason for every other node.

    Attributes:
        sites: what becomes integer.
        why_float: the reason by node name, for every node of the main graph that is no site and
            not absorbed by one.
        moved: the tensor whose values it holds, by tensor that a ``move`` operator puts out which
            the target leaves in float.
    """

    sites: tuple[Site, ...]
    why_float: dict[str, str]
    moved: dict[str, str]

    def quantized(self) -> dict[str, ir.Value]:
        """Return every activation tensor that is to be quantized, by name, in graph order."""
        tensors: dict[str, ir.Value] = {}
        for site in self.sites:
            outputs = site.outputs if site.requantize else ()
            for value in (*site.activations, *outputs):
                tensors.setdefault(name_of(value), value)
        return tensors


@dataclass(frozen=True, slots=True)
class Gate:
    """A HardSigmoid, ``clip(alpha * x + beta, 0, 1)``; a HardSwish multiplies its input by one."""

    alpha: float
    beta: float


def gate_of(node: ir.Node) -> Gate | None:
    """Return the HardSigmoid in a node, if there is one."""
    if node.op_type == "HardSwish":
        return Gate(1 / 6, 0.5)
    if node.op_type == "HardSigmoid":
        return Gate(float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5))
    return None


def gate_name(output: ir.Value) -> str:
    """Return what planning calls the gate of the HardSwish that puts out this value."""
    return f"{output.name}/gate"


def clip_range(node: ir.Node) -> tuple[float, float]:
    """Return the range that an operator maps into if it clips: Relu, constant Clip, HardSigmoid."""
    lo, hi = -math.inf, math.inf
    if node.op_type == "Relu":
        lo = 0.0
    elif node.op_type == "HardSigmoid":
        lo, hi = 0.0, 1.0
    elif node.op_type == "Clip":
        ends = [scalar(input_at(node, index)) for index in (1, 2)]
        lo, hi = (x if end is None else end for x, end in zip((lo, hi), ends, strict=True))
    return lo, hi


def name_of(value: ir.Value) -> str:
    """Return the name of a value."""
    return value.name or ""


def is_standard(node: ir.Node) -> bool:
    """Return whether the node is an operator of the default ONNX domain."""
    return node.domain in ("", "ai.onnx")
