"""What it costs on this machine to convert a tensor between float and codes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from ptq.graph.save import to_bytes
from ptq.runtime.profile import profile_kernels

#: Two images, one small enough for the second cache, one not: a cost is a start and a slope.
_SHAPES = ((1, 32, 28, 28), (1, 64, 112, 112))

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
#: Integer convolutions want channels last, the float ones blocks of channels.
_TRANSPOSE, _REORDER = "Transpose", "ReorderInput"


@dataclass(frozen=True, slots=True)
class Conversions:
    """Costs in milliseconds: a constant, and a slope for each element.

    Attributes:
        quantize: of QuantizeLinear.
        dequantize: of DequantizeLinear.
        transpose: of moving channels of uint8 images.
        reorder: of blocking channels of float images.
    """

    quantize: tuple[float, float]
    dequantize: tuple[float, float]
    transpose: tuple[float, float]
    reorder: tuple[float, float]


def cost_ms(line: tuple[float, float], elements: int) -> float:
    """Return what converting a tensor of so many elements costs."""
    return max(0.0, line[0] + line[1] * elements)


def measure_conversions(*, threads: int = 1) -> Conversions:
    """Return what converting costs, from a few hundred runs of a model that does nothing else."""
    model, feed = _model()
    times = {k.name: k.ms for k in profile_kernels(model, feed, threads=threads, runs=50)}
    counts = [prod(shape) for shape in _SHAPES]

    def line(op_type: str) -> tuple[float, float]:
        small, large = (times[f"{op_type}{i}"] for i in range(len(_SHAPES)))
        slope = max(0.0, (large - small) / (counts[1] - counts[0]))
        return max(0.0, small - slope * counts[0]), slope

    return Conversions(line(_QUANTIZE), line(_DEQUANTIZE), line(_TRANSPOSE), line(_REORDER))


def _model() -> tuple[bytes, dict[str, np.ndarray]]:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21, "com.microsoft.nchwc": 1}, name="g")
    scale = _constant(graph, "scale", np.asarray(0.02, np.float32))
    zero_point = _constant(graph, "zero_point", np.asarray(128, np.uint8))
    feed: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    for i, shape in enumerate(_SHAPES):
        real = rng.standard_normal(shape).astype(np.float32)
        codes = rng.integers(0, 256, shape).astype(np.uint8)
        feed |= {f"real{i}": real, f"codes{i}": codes}
        x = _input(graph, f"real{i}", ir.DataType.FLOAT, shape)
        q = _input(graph, f"codes{i}", ir.DataType.UINT8, shape)
        _node(graph, f"{_QUANTIZE}{i}", ir.node(_QUANTIZE, [x, scale, zero_point]), q.dtype)
        _node(graph, f"{_DEQUANTIZE}{i}", ir.node(_DEQUANTIZE, [q, scale, zero_point]), x.dtype)
        transpose = ir.node(_TRANSPOSE, [q], {"perm": [0, 2, 3, 1]})
        _node(graph, f"{_TRANSPOSE}{i}", transpose, q.dtype)
        reorder = ir.node(_REORDER, [x], domain="com.microsoft.nchwc")
        _node(graph, f"{_REORDER}{i}", reorder, x.dtype)
    return to_bytes(ir.Model(graph, ir_version=10)), feed


def _input(graph: ir.Graph, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
    graph.inputs.append(value)
    return value


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _node(graph: ir.Graph, name: str, node: ir.Node, dtype: ir.DataType | None) -> None:
    node.name = name
    output = node.outputs[0]
    output.name = f"{name}_out"
    assert dtype is not None
    output.dtype = dtype
    graph.append(node)
    graph.outputs.append(output)
