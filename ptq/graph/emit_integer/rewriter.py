"""The graph while it is rewritten: constants and kernels are added, what they replace goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from ptq.graph.emit_integer.quantized import (
    EIGHT_BIT,
    Operand,
    Params,
    Result,
    UnfitError,
    operand,
    result,
)
from ptq.graph.passes.edit import Array, constant, is_op, only_user, take_over
from ptq.graph.passes.infer_shapes import InferShapes

#: The domain of the operators that only onnxruntime knows.
MICROSOFT = "com.microsoft"


class Rewriter:
    """Writes kernels into the main graph of a model.

    Attributes:
        model: what is rewritten.
        graph: its main graph.
        kernels: the integer operators written so far, by type.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self.kernels: Counter[str] = Counter()
        self._names = _names(model)
        self._zeros: dict[ir.DataType, ir.Value] = {}
        self._ranks = _ranks(model)

    # -- reading ------------------------------------------------------------------------------

    def activation(
        self, value: ir.Value | None, types: Sequence[ir.DataType] = EIGHT_BIT
    ) -> Operand:
        """Return an operand with one scale.

        Raises:
            UnfitError: it is in float, of another type, or has a scale for each channel.
        """
        found = operand(value)
        if found.params.dtype not in types:
            raise UnfitError(f"no kernel takes codes of type {found.params.dtype.name.lower()}")
        if found.params.axis is not None:
            raise UnfitError("its input has a scale for each channel")
        return found

    def output(self, node: ir.Node, dtype: ir.DataType) -> Result | None:
        """Return what quantizes the node's output to codes of a type, with one scale."""
        found = result(node.outputs[0])
        fits = found is not None and found.params.dtype == dtype and found.params.axis is None
        return found if fits else None

    def required_output(self, node: ir.Node, dtype: ir.DataType) -> Result:
        """Return the same where a kernel cannot do without.

        Raises:
            UnfitError: there is none.
        """
        found = self.output(node, dtype)
        if found is None:
            kind = dtype.name.lower()
            raise UnfitError(f"its output is not read by one QuantizeLinear to {kind} alone")
        return found

    def rank(self, value: ir.Value) -> int:
        """Return the rank of a value that was there in the beginning, 0 where it is not known."""
        return self._ranks.get(value.name or "", 0)

    # -- writing ------------------------------------------------------------------------------

    def constant(self, name: str, array: Array) -> ir.Value:
        """Add an initializer."""
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=self.fresh(name))
        # without a type: the tensor says it, and the file need not say it twice
        value = ir.Value(name=tensor.name, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def scale_and_zero_point(self, params: Params) -> tuple[ir.Value, ir.Value]:
        """Return both as inputs of a kernel; a zero point left out is written."""
        if params.zero_point is not None:
            return params.scale, params.zero_point
        return params.scale, self.constant(f"{params.scale.name}/zero_point", params.zeros)

    def triple(self, operand: Operand) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return codes, scale and zero point, as most kernels take an operand."""
        return operand.codes, *self.scale_and_zero_point(operand.params)

    def weight_triple(self, operand: Operand) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return the same of a weight; zero points that are all 0 become one scalar for all.

        That spares the file as many bytes as there are channels, and some kernels the work.
        """
        params = operand.params
        if params.axis is None or params.zeros.any():
            return self.triple(operand)
        if params.dtype not in self._zeros:
            zero = np.zeros((), params.dtype.numpy())
            self._zeros[params.dtype] = self.constant(f"zero_point/{zero.dtype}", zero)
        return operand.codes, params.scale, self._zeros[params.dtype]

    def quantizing(
        self,
        node: ir.Node,
        kernel: ir.Node,
        result: Result,
    ) -> bool:
        """Let a kernel that puts out codes stand for node, Relu, Clip and QuantizeLinear."""
        self.place(node, kernel)
        self.requantized(kernel.outputs[0], result)
        self.graph.remove(node, safe=True)
        return True

    def requantized(self, codes: ir.Value, result: Result) -> None:
        """Let codes take the place of the QuantizeLinear and of what it absorbs.

        Saturation clips already what lies outside of the codes; what lies inside is clipped on
        the codes. Rounding is monotone, so that this gives the code that clipping first would.
        """
        bounds = [result.params.code_of(end) for end in (result.lo, result.hi)]
        limits = np.iinfo(result.params.dtype.numpy())
        quantized = result.quantize.outputs[0]
        if [int(b) for b in bounds] != [limits.min, limits.max]:
            name = quantized.name or ""
            codes.name = self.fresh(f"{name}/unclipped")
            ends = [
                self.constant(f"{name}/clip_{end}", code)
                for end, code in zip(("lo", "hi"), bounds, strict=True)
            ]
            clip = ir.node("Clip", [codes, *ends], name=self._name_of_clip(result))
            self.graph.insert_before(result.quantize, clip)
            codes = clip.outputs[0]
        take_over(quantized, codes)
        for node in (result.quantize, *reversed(result.clips)):
            self.graph.remove(node, safe=True)

    def _name_of_clip(self, result: Result) -> str:
        if result.clips:
            return result.clips[-1].name or ""
        return self.fresh(f"{result.quantize.name}/Clip")

    def replacing(self, nodes: Sequence[ir.Node], kernel: ir.Node) -> bool:
        """Let a kernel put out what the last of some nodes in a row does; they go."""
        self.place(nodes[0], kernel)
        take_over(nodes[-1].outputs[0], kernel.outputs[0])
        for node in reversed(nodes):
            self.graph.remove(node, safe=True)
        return True

    def place(self, node: ir.Node, kernel: ir.Node) -> None:
        """Insert a kernel before the node that it stands for, under the node's name."""
        kernel.name = node.name
        self.graph.insert_before(node, kernel)
        self.kernels[kernel.op_type] += 1

    def fresh(self, name: str) -> str:
        """Return the name, with a number if it is taken."""
        candidate, number = name, 1
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate


def kernel(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Iterable[ir.Attr] = (),
    *,
    domain: str = "",
    outputs: int = 1,
) -> ir.Node:
    """Return a node that stands nowhere yet."""
    return ir.Node(domain, op_type, inputs, attributes, num_outputs=outputs)


def _names(model: ir.Model) -> set[str]:
    taken: set[str] = set()
    for graph in model.graphs():
        taken.update(graph.initializers)
        taken.update(v.name for v in graph.inputs if v.name)
    for node in model.graph.all_nodes():
        taken.update(v.name for v in node.outputs if v.name)
        taken.add(node.name or "")
    return taken


def _ranks(model: ir.Model) -> dict[str, int]:
    """Infer the ranks of inner values, if a bias with several axes makes it necessary to know."""
    if not any(map(_adds_a_row, model.graph)):
        return {}
    inferred = model.clone()
    InferShapes()(inferred)
    values = (value for node in inferred.graph for value in node.outputs)
    return {v.name or "": len(v.shape) for v in values if v.shape is not None}


def _adds_a_row(node: ir.Node) -> bool:
    if not is_op(node, "MatMul", "Mul"):  # a Mul ends a dynamic product
        return False
    reader = only_user(node.outputs[0])
    if reader is None or not is_op(reader, "Add", "Sum"):
        return False
    arrays = (constant(value) for value in reader.inputs)
    return any(array is not None and array.ndim > 1 for array in arrays)
