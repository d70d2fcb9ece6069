"""Write QuantizeLinear, DequantizeLinear and their constants into a graph, under free names."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ptq.graph.passes.edit import Array
from ptq.graph.writer import GraphWriter

#: Scale and zero point, as initializers.
Parameters = tuple[ir.Value, ir.Value]


class QdqWriter(GraphWriter):
    """Writes into the main graph of a model, before or after nodes that are there."""

    def __init__(self, model: ir.Model) -> None:
        super().__init__(model)
        self.graph = model.graph

    def constant_of(self, name: str, array: Array) -> ir.Value:
        """Return a new initializer of the main graph."""
        return self.constant(self.graph, name, array)

    def quantize(
        self, value: ir.Value, name: str, parameters: Parameters, *, after: ir.Node | None
    ) -> ir.Value:
        """Return the codes of a value; without a node to follow, they come first in the graph."""
        node = ir.node("QuantizeLinear", [value, *parameters], name=self.fresh(f"{name}/Q"))
        return self.place(node, f"{name}/quantized", parameters[1].dtype, after=after)

    def dequantize(
        self,
        codes: ir.Value,
        name: str,
        parameters: Parameters,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
        axis: int | None = None,
    ) -> ir.Value:
        """Return what codes stand for, computed before or after a node."""
        node = ir.node(
            "DequantizeLinear",
            [codes, *parameters],
            attributes=None if axis is None else {"axis": axis},
            name=self.fresh(f"{name}/DQ"),
        )
        return self.place(node, name, ir.DataType.FLOAT, before=before, after=after)

    def hand_over(
        self, value: ir.Value, to: ir.Value, readers: Iterable[tuple[ir.Node, int]]
    ) -> None:
        """Let these readers and the graph's outputs have another value."""
        to.shape, to.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
        for node, index in readers:
            node.replace_input_with(index, to)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = to

    def place(
        self,
        node: ir.Node,
        name: str,
        dtype: ir.DataType | None,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Insert a node of one output, name that, and return it."""
        output = node.outputs[0]
        output.name = self.fresh(name)
        if dtype is not None:
            output.dtype = dtype
        if before is not None:
            self.graph.insert_before(before, node)
        elif after is not None:
            self.graph.insert_after(after, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        return output
