"""What the profiler itself adds to the time of every kernel.

It looks at the shapes of inputs and outputs and at the memory in use while its clock runs: some
microseconds, several times what a small kernel takes. A chain of trivial nodes shows how many.
"""

from __future__ import annotations

import onnx_ir as ir

#: How many nodes the chain has: enough to make what a run costs besides small.
LENGTH = 100

#: The input of the chain, and its shape: that of an image's features, with little in it.
INPUT, SHAPE = "x", (1, 16, 2, 2)


def chain() -> bytes:
    """Return a model of `LENGTH` nodes in a row, none of which is worth a microsecond."""
    value = graph_input = _value(INPUT)
    nodes = []
    for i in range(LENGTH):
        nodes.append(ir.Node("", "Neg", [value], outputs=[_value(f"t{i}")], name=f"n{i}"))
        value = nodes[-1].outputs[0]
    graph = ir.Graph([graph_input], [value], nodes=nodes, opset_imports={"": 17}, name="chain")
    content: bytes = ir.to_proto(ir.Model(graph, ir_version=8)).SerializeToString()
    return content


def _value(name: str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(SHAPE), type=ir.TensorType(ir.DataType.FLOAT))
