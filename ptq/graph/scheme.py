"""What the schemes without calibration, dynamic and weight-only, have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.errors import CalibrationError, PtqError
from ptq.graph.passes.edit import Array, constant, float_attribute, input_at, int_attribute, is_op
from ptq.graph.writer import array_of, float_array_of
from ptq.numerics.affine import QTensor
from ptq.plan import NodePlan


@dataclass(frozen=True, slots=True)
class SchemeEmitted:
    """What a scheme did.

    Attributes:
        nodes: one entry for every node of the original main graph, in its order.
        inner: one for every node inside an If, Loop or Scan whose weight is now in few bits.
        weights: how many weights were quantized.
    """

    nodes: tuple[NodePlan, ...]
    inner: tuple[NodePlan, ...]
    weights: int


class Fates:
    """Keeps what becomes of every node, and says it in the order of the original graph."""

    def __init__(self, model: ir.Model, exclude: Mapping[str, str]) -> None:
        self._main = model.graph
        self._nodes = [node for graph in model.graphs() for node in graph]
        self._origin = [(n, n.name or "", n.op_type, n.graph is model.graph) for n in self._nodes]
        self._exclude = exclude
        self._plans: dict[int, NodePlan] = {}

    def candidates(self) -> Iterator[ir.Node]:
        """Yield the nodes of all graphs that are not excluded and not removed meanwhile."""
        for node in self._nodes:
            if why := self._exclude.get(node.name or ""):
                self.stays_float(node, why)
            elif node.graph is not None:
                yield node

    def excluded(self, node: ir.Node) -> bool:
        """Whether the caller keeps this node in float."""
        return (node.name or "") in self._exclude

    def becomes_integer(self, node: ir.Node, weight: str | None, *, symmetric: bool = True) -> None:
        """Note that a kernel on codes does a node's work."""
        self._plans[id(node)] = NodePlan(
            name=node.name or "",
            op_type=node.op_type,
            integer=True,
            weight=weight,
            weight_symmetric=symmetric,
        )

    def stays_float(self, node: ir.Node, why: str, weight: str | None = None) -> None:
        """Note that a node computes in float, and why; its weight may be in few bits even so."""
        self._plans[id(node)] = NodePlan(
            name=node.name or "", op_type=node.op_type, integer=False, why=why, weight=weight
        )

    def unpacks(self, node: ir.Node, weight: str | None, *, bits: int) -> None:
        """Note that a node computes in float, with a weight that is unpacked at load."""
        noted = self._plans.get(id(node))
        if noted is not None and noted.weight is not None:
            return  # W and R of one recurrent layer
        why = noted.why if noted is not None else "it computes in float"
        self.stays_float(node, f"{why}; its weight has {bits} bits, unpacked at load", weight)

    def emitted(self, weights: int) -> SchemeEmitted:
        """Return the record of all nodes."""
        nodes: list[NodePlan] = []
        inner: list[NodePlan] = []
        for node, name, op_type, main in self._origin:
            plan = self._plans.get(id(node))
            if main:
                why = "it has no weight that could be quantized"
                nodes.append(plan or NodePlan(name=name, op_type=op_type, integer=False, why=why))
            elif plan is not None and plan.weight is not None:
                inner.append(plan)
        return SchemeEmitted(tuple(nodes), tuple(inner), weights)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A product with a constant matrix.

    Attributes:
        x: the other operand.
        weight: the matrix as a value, ...
        array: ... and its numbers.
        inner: the axis of it that is summed over.
        bias: what is added, if anything.
    """

    x: ir.Value
    weight: ir.Value
    array: Array
    inner: int
    bias: ir.Value | None

    @property
    def channels(self) -> int:
        """How many outputs a row of ``x`` has."""
        return int(self.array.shape[1 - self.inner])

    def row(self, value: ir.Value | None) -> Array | None:
        """Return a value as one number for each output, if it is a constant of that kind."""
        array = float_array_of(value)
        if array is None or array.size not in (1, self.channels):
            return None
        if array.size != 1 and array.shape[-1] != self.channels:
            return None
        return np.broadcast_to(array.reshape(-1), (self.channels,))


def linear_of(node: ir.Node) -> Linear | str:
    """Return what a MatMul or Gemm multiplies by, or why it cannot be quantized."""
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None:
        return "an input is missing"
    if array_of(weight) is None:
        return "the weight is not constant"
    array = float_array_of(weight)
    if array is None:
        return f"the weight is {weight.dtype}, not float32"
    if array.ndim != 2:
        return "the weight is no matrix"
    if array.size == 0:
        return "the weight is empty"
    if array_of(x) is not None:
        return "both operands are constant"
    if x.shape is not None and len(x.shape) < 2:
        return "the other operand is a vector"
    if node.op_type == "MatMul":
        return Linear(x, weight, array, 0, None)
    for name in ("alpha", "beta"):
        if (found := float_attribute(node, name, 1.0)) != 1.0:
            return f"attribute {name}={found:g}; the kernel needs 1"
    if int_attribute(node, "transA", 0):
        return "attribute transA=1; the kernel needs 0"
    return Linear(x, weight, array, int_attribute(node, "transB", 0), input_at(node, 2))


def table_of(node: ir.Node) -> Array | str:
    """Return the table of rows that a Gather reads, or why it cannot be quantized."""
    if array_of(node.inputs[0]) is None:
        return "the table is not constant"
    array = float_array_of(node.inputs[0])
    if array is None or array.ndim != 2 or array.size < SMALLEST:
        return "it reads no table of float32 rows that is worth it"
    if int_attribute(node, "axis", 0) != 0:
        return "it does not read whole rows"
    return array


#: Elements of the smallest weight that is worth the nodes which unpack it.
SMALLEST = 1024

#: Where operators have their weights; these inputs are constants as a rule.
WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gather": (0,),
    "Gemm": (0, 1),
    "GRU": (1, 2),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}

#: What only moves a weight about before it is read: done once, when the model is loaded.
_MOVES = ("Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def weight_readers(value: ir.Value) -> set[ir.Node]:
    """Return the operators that have a value, moved about or not, as a weight.

    None at all if anything reads it otherwise: then it may be no weight.
    """
    found: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current.is_graph_output():
            return set()
        for node, index in current.uses():
            if is_op(node, *WEIGHT_INPUTS) and index in WEIGHT_INPUTS[node.op_type]:
                found.add(node)
            elif is_op(node, *_MOVES) and (index == 0 or node.op_type == "Concat"):
                waiting.extend(node.outputs)
            else:
                return set()
    return found


def float_constants(model: ir.Model) -> list[ir.Value]:
    """Return the float32 constants of all graphs that are large enough, in graph order."""
    found: list[ir.Value] = []
    for graph in model.graphs():
        values = [v for v in graph.initializers.values() if constant(v) is not None]
        values += [node.outputs[0] for node in graph if is_op(node, "Constant")]
        for value in values:
            array = float_array_of(value)
            if array is not None and array.ndim >= 2 and array.size >= SMALLEST:
                found.append(value)
    return found


def quantized(value: ir.Value, node: ir.Node | None, quantize: Callable[[], QTensor]) -> QTensor:
    """Return what ``quantize`` returns; its errors name the weight and the node.

    Raises:
        CalibrationError: the weight is not finite.
    """
    try:
        return quantize()
    except PtqError as error:
        where = f" of '{node.name}'" if node is not None else ""
        raise CalibrationError(f"weight '{value.name}'{where}: {error}") from error


def forget_inner_types(model: ir.Model) -> None:
    """Drop what inference finds anew at load: in small models it outweighs the weights saved."""
    kept = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        for value in node.outputs:
            if id(value) not in kept:
                value.shape = value.type = None
