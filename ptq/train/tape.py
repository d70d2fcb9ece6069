"""Append operators to a graph, with Python numbers and arrays as operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

#: What an operator can read: a value, a constant, or nothing where an input is optional.
Operand: TypeAlias = "ir.Value | np.ndarray | Sequence[int] | float | int | None"

#: What an attribute of an operator can be.
Attribute: TypeAlias = int | float | str | Sequence[int] | Sequence[float] | ir.Graph


class Tape:
    """Appends standard operators to a graph, or to the body of a function.

    Numbers become constants: floats of the type that the network computes in, integers (and
    sequences of them) of int64. Equal constants are written once.

    Args:
        graph: grows at its end.
        prefix: what the names of new values begin with; must be taken by nothing in the graph.
        dtype: what floats become.
        body: whether the graph is the body of a function, which has no initializers.
    """

    def __init__(
        self,
        graph: ir.Graph,
        prefix: str,
        dtype: np.dtype[Any] | type = np.float32,
        *,
        body: bool = False,
    ) -> None:
        self.graph = graph
        self.prefix = prefix
        self.dtype = np.dtype(dtype)
        self.body = body
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def op(
        self, op_type: str, *inputs: Operand, domain: str = "", **attributes: Attribute
    ) -> ir.Value:
        """Append an operator of one output, and return the output.

        Args:
            op_type: its name.
            inputs: its operands; ``None`` leaves an optional one out.
            domain: its domain.
            attributes: integers, floats, strings, or sequences of these; the body of a loop.
        """
        return self.ops(op_type, *inputs, domain=domain, outputs=1, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: Operand,
        outputs: int,
        domain: str = "",
        **attributes: Attribute,
    ) -> tuple[ir.Value, ...]:
        """Append an operator of several outputs, and return the outputs; arguments as for `op`."""
        node = ir.node(
            op_type,
            [self.value(x) for x in inputs],
            attributes=attributes or None,
            domain=domain,
            num_outputs=outputs,
            name=self.name(op_type),
        )
        for index, output in enumerate(node.outputs):
            output.name = f"{node.name}:{index}" if index else node.name
        self.graph.append(node)
        return tuple(node.outputs)

    def value(self, operand: Operand) -> ir.Value | None:
        """Return an operand as a value of the graph."""
        if operand is None or isinstance(operand, ir.Value):
            return operand
        return self.constant(self._array(operand))

    def constant(self, array: np.ndarray) -> ir.Value:
        """Return a constant of the graph; arrays of floats keep their type."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self._constant(array)
        return self._constants[key]

    def name(self, what: str) -> str:
        """Return a name that is new."""
        self._count += 1
        return f"{self.prefix}{what}_{self._count}"

    def _array(self, operand: np.ndarray | Sequence[int] | float | int) -> np.ndarray:
        if isinstance(operand, np.ndarray):
            return operand
        if isinstance(operand, float | np.floating):
            return np.asarray(operand, self.dtype)
        return np.asarray(operand, np.int64)

    def _constant(self, array: np.ndarray) -> ir.Value:
        tensor = ir.Tensor(array, name=self.name("constant"))
        if self.body:
            node = ir.node("Constant", [], attributes={"value": tensor}, name=tensor.name)
            node.outputs[0].name = tensor.name
            self.graph.append(node)
            return node.outputs[0]
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value
