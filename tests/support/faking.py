"""A trained quantizer alone in a graph: what it puts out, and gradients of every element."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ptq.graph.save import to_bytes
from ptq.numerics.affine import QParams, QTensor, quantize
from ptq.numerics.qtype import QType
from ptq.runtime.session import open_session
from ptq.train.estimators import functions, resolve
from ptq.train.fakequant.base import ActivationStart, Faked, Parameter, QatMethod, WeightStart
from ptq.train.reverse import differentiate
from ptq.train.tape import Tape
from ptq.train.trace import trace


def activation_start(bits: int, hi: float, lo: float = 0.0, size: int = 1) -> ActivationStart:
    """Return the start of an activation that is clipped to about ``lo .. hi``."""
    qtype = QType(bits, signed=False)
    scale = (hi - lo) / qtype.qmax
    return ActivationStart("x", qtype, float(np.float32(scale)), round(-lo / scale), size)


def weight_start(
    array: np.ndarray, bits: int, bound: np.ndarray | float, axis: int | None = None
) -> WeightStart:
    """Return the start of a weight that is clipped to ``±bound``, a number or one by channel."""
    qtype = QType(bits, signed=True, narrow=bits > 1)
    scale = np.asarray(bound, np.float32) / np.float32(max(qtype.qmax, 1))
    params = QParams(scale, np.zeros(scale.shape, qtype.storage), qtype, axis)
    return WeightStart("w", array, QTensor(quantize(array, params), params), axis)


class Faking:
    """One quantizer, run by onnxruntime.

    Args:
        method: the method.
        start: what is quantized.
        x: a shape to make the graph for.
    """

    def __init__(
        self, method: QatMethod, start: ActivationStart | WeightStart, x: np.ndarray
    ) -> None:
        of_weight = isinstance(start, WeightStart)
        listed = (
            method.weight_parameters(start) if of_weight else method.activation_parameters(start)
        )
        self.parameters: dict[str, Parameter] = {p.name: p for p in listed}
        self.first = {p.name: p.start for p in listed}
        feed = {"x": x, "cotangent": np.ones_like(x), **self.first}
        inputs = {n: _input(n, np.asarray(a)) for n, a in feed.items()}
        graph = ir.Graph(
            list(inputs.values()), [], nodes=[], opset_imports={"": 21, "ptq": 1}, name="faking"
        )
        tape = Tape(graph, "t/")
        make = method.weight if of_weight else method.activation
        p = {n: inputs[n] for n in self.first}
        faked: Faked = make(tape, inputs["x"], p, start)  # type: ignore[arg-type]
        product = tape.op("Mul", faked.value, inputs["cotangent"])
        loss = tape.op("ReduceSum", product, keepdims=0)
        parts = {"value": faked.value, "scale": faked.scale, "zero": faked.zero_point}
        parts |= {"encode": faked.encode, **{f"next/{n}": v for n, v in faked.states.items()}}
        self._put_out(tape, parts)
        model = ir.Model(graph, ir_version=10, functions=list(functions()))
        seen = trace(model, feed)
        found = differentiate(graph, loss, [inputs[n] for n in ("x", *p)], seen)
        resolve(graph)
        self._put_out(tape, {f"d/{n}": v for n, v in found.of.items()})
        self.names = [v.name or "" for v in graph.outputs]
        self.session = open_session(to_bytes(model))

    @staticmethod
    def _put_out(tape: Tape, parts: Mapping[str, ir.Value | None]) -> None:
        for name, value in parts.items():
            if value is not None:
                output = tape.op("Identity", value)
                output.name, output.dtype = name, ir.DataType.FLOAT
                tape.graph.outputs.append(output)

    def run(
        self, x: np.ndarray, cotangent: np.ndarray | None = None, **p: np.ndarray | float
    ) -> dict[str, np.ndarray]:
        """Return all that is put out, by name; gradients are called ``d/…``, states ``next/…``."""
        feed: Mapping[str, np.ndarray] = {"x": x, **self.first, **p}
        weights = np.ones_like(x) if cotangent is None else cotangent
        arrays = {n: np.asarray(a, np.float32) for n, a in {**feed, "cotangent": weights}.items()}
        read = {i.name for i in self.session.get_inputs()}
        made = self.session.run(self.names, {n: a for n, a in arrays.items() if n in read})
        return dict(zip(self.names, made, strict=True))

    def by_element(self, name: str, x: np.ndarray, **p: np.ndarray | float) -> np.ndarray:
        """Return the gradient of each element of a vector that is quantized by a parameter."""
        units = np.eye(x.size, dtype=np.float32)
        return np.stack([self.run(x, unit, **p)[f"d/{name}"] for unit in units])


def _input(name: str, array: np.ndarray) -> ir.Value:
    shape = ir.Shape(array.shape)
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
