"""Check rules of differentiation against central differences.

In float64 by onnx.reference; or, for what is linear in each operand, in whole numbers by
onnxruntime: then differences are exact, and so must gradients be. And compute gradients as they
are in use: in float32 by onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy import special

from ptq.graph.save import to_bytes
from ptq.runtime.session import Session, open_session, run
from ptq.train.estimators import functions, resolve
from ptq.train.reverse import differentiate
from ptq.train.tape import Tape
from ptq.train.trace import Trace, trace
from ptq.train.variants import Variants

#: Appends the forward pass to a tape, given its inputs, and returns what it puts out.
Forward = Callable[..., "ir.Value | Sequence[ir.Value]"]


#: Directions along which a gradient is checked.
_FEW = 5


class Erf(OpRun):
    """The error function in float64; that of onnx.reference is in float32."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.asarray(special.erf(x), x.dtype),)


class MeanVarianceNormalization(OpRun):
    """The operator in float64; that of onnx.reference mixes it with float32."""

    op_domain = ""

    def _run(self, x: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray]:
        along = tuple(axes)
        deviation = x.std(axis=along, keepdims=True)
        return ((x - x.mean(axis=along, keepdims=True)) / (deviation + 1e-9),)


class Differentiated:
    """A forward pass in float64 with the loss ``Σ weights · outputs``, and its gradients.

    Args:
        forward: makes the forward pass.
        feed: the inputs, by name; arrays of integers are constants.
        seed: of the weights of the loss.
        opset: of the operators of the forward pass.
        whole: compute in float32 by onnxruntime, with weights that are small whole numbers.
        variants: which of several equal ways to a gradient is taken.
    """

    def __init__(
        self,
        forward: Forward,
        feed: Mapping[str, np.ndarray],
        seed: int = 0,
        *,
        opset: int = 21,
        whole: bool = False,
        variants: Variants | None = None,
    ) -> None:
        self.whole = whole
        dtype = np.float32 if whole else np.float64
        feed = {
            n: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a
            for n, a in feed.items()
        }
        self.feed = {n: a for n, a in feed.items() if np.issubdtype(a.dtype, np.floating)}
        inputs = {n: _input(n, a) for n, a in self.feed.items()}
        graph = ir.Graph(list(inputs.values()), [], nodes=[], opset_imports={"": opset, "ptq": 1})
        graph.name = "check"
        tape = Tape(graph, "forward/", dtype)
        given = [inputs[n] if n in inputs else tape.constant(a) for n, a in feed.items()]
        made = forward(tape, *given)
        outputs = [made] if isinstance(made, ir.Value) else list(made)
        self.model = ir.Model(graph, ir_version=10, functions=list(functions()))
        values = self._run([v for node in graph for v in node.outputs])
        rng = np.random.default_rng(seed)
        terms = []
        for output in outputs:
            shape = values[output.name or ""].shape
            weights = rng.integers(-3, 4, shape) if whole else rng.normal(size=shape)
            product = tape.op("Mul", output, np.asarray(weights, dtype))
            terms.append(tape.op("ReduceSum", product, keepdims=0))
        loss = terms[0] if len(terms) == 1 else tape.op("Sum", *terms)
        self._forward = self._session([loss])  # before gradients are in the graph
        values = self._run([v for node in graph for v in node.outputs])
        traced = Trace.of_values({**values, **self.feed})
        found = differentiate(graph, loss, list(inputs.values()), traced, dtype, variants)
        self.frozen = found.frozen
        resolve(graph)
        self.of = {name: value.name or "" for name, value in found.of.items()}
        by_name = {v.name: v for node in graph for v in node.outputs}
        by_name |= {v.name: v for v in graph.initializers.values()}
        self.gradients = self._run([by_name[n] for n in self.of.values()])

    def gradient(self, name: str) -> np.ndarray:
        """Return the gradient by an input."""
        return self.gradients[self.of[name]]

    def numerical(self, name: str, step: float = 1e-6) -> np.ndarray:
        """Return the gradient by an input from central differences."""
        found = np.zeros(self.feed[name].shape)
        for index in np.ndindex(found.shape):
            unit = np.zeros(found.shape)
            unit[index] = 1
            found[index] = self.along({name: unit}, step)
        return found

    def along(self, direction: Mapping[str, np.ndarray], step: float = 1e-6) -> float:
        """Return the derivative of the loss along a direction, from central differences."""
        moves = {n: direction.get(n, np.zeros(a.shape)) for n, a in self.feed.items()}
        ahead, back = (
            self._loss({n: (a + s * moves[n]).astype(a.dtype) for n, a in self.feed.items()})
            for s in (step, -step)
        )
        return (ahead - back) / (2 * step)

    def _loss(self, feed: Mapping[str, np.ndarray]) -> float:
        return float(self._forward.run(None, dict(feed))[0])

    def _run(self, values: Sequence[ir.Value]) -> dict[str, np.ndarray]:
        found = self._session(values).run(None, dict(self.feed))
        return {v.name or "": np.asarray(a) for v, a in zip(values, found, strict=True)}

    def _session(self, values: Sequence[ir.Value]) -> ReferenceEvaluator | Session:
        graph = self.model.graph
        graph.outputs[:] = list(values)
        proto = ir.serde.serialize_model(self.model)
        graph.outputs[:] = []
        for output in proto.graph.output:  # the reference evaluator reads no types
            output.ClearField("type")
        if self.whole:
            return open_session(proto.SerializeToString())
        whole = onnx.ModelProto.FromString(proto.SerializeToString())
        return ReferenceEvaluator(whole, new_ops=[Erf, MeanVarianceNormalization])


def run_gradients(
    forward: Forward, feed: Mapping[str, np.ndarray], opset: int = 21
) -> dict[str, np.ndarray]:
    """Return, from onnxruntime and in float32, the gradients of the sum of the cubes of outputs.

    Args:
        forward: makes the forward pass.
        feed: the inputs, by name, float32.
        opset: of the operators.
    """
    inputs = {name: _input(name, array) for name, array in feed.items()}
    graph = ir.Graph(list(inputs.values()), [], nodes=[], opset_imports={"": opset, "ptq": 1})
    graph.name = "check"
    tape = Tape(graph, "forward/")
    made = forward(tape, *inputs.values())
    outputs = [made] if isinstance(made, ir.Value) else list(made)
    cubes = [tape.op("Mul", output, tape.op("Mul", output, output)) for output in outputs]
    terms = [tape.op("ReduceSum", cube, keepdims=0) for cube in cubes]
    loss = terms[0] if len(terms) == 1 else tape.op("Sum", *terms)
    graph.outputs.append(loss)
    loss.dtype = ir.DataType.FLOAT
    model = ir.Model(graph, ir_version=10, functions=list(functions()))
    found = differentiate(graph, loss, list(inputs.values()), trace(model, feed))
    assert found.frozen == ()
    resolve(graph)
    for value in found.of.values():
        value.dtype = ir.DataType.FLOAT
    graph.outputs[:] = list(found.of.values())
    session = open_session(to_bytes(model))
    values = run(session, feed, [v.name or "" for v in graph.outputs], where="the check")
    return dict(zip(found.of, values, strict=True))


def check_gradients(
    forward: Forward,
    feed: Mapping[str, np.ndarray],
    *,
    opset: int = 21,
    rtol: float = 1e-5,
    atol: float = 1e-7,
) -> None:
    """Compare the gradients by all inputs that are floats with central differences.

    Along each axis of inputs of few numbers; else along as many random directions, each of which
    sees an error anywhere.
    """
    found, rng = Differentiated(forward, feed, opset=opset), np.random.default_rng(1)
    assert found.frozen == ()
    for name, array in found.feed.items():
        few = array.size <= _FEW
        for unit in np.eye(array.size) if few else rng.normal(size=(_FEW, array.size)):
            direction = unit.reshape(array.shape)
            slope = np.sum(found.gradient(name) * direction)
            expected = found.along({name: direction})
            np.testing.assert_allclose(slope, expected, rtol=rtol, atol=atol, err_msg=name)


def check_whole_gradients(forward: Forward, feed: Mapping[str, np.ndarray]) -> None:
    """Compare gradients with differences, both exact.

    Args:
        forward: linear in each input, with whole numbers as factors.
        feed: small whole numbers, as floats.
    """
    found = Differentiated(forward, feed, whole=True)
    assert found.frozen == ()
    for name in found.feed:
        np.testing.assert_array_equal(
            found.gradient(name), found.numerical(name, step=1.0), err_msg=name
        )


def whole_numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return small whole numbers, as floats."""
    return rng.integers(-3, 4, shape).astype(np.float64)


def _input(name: str, array: np.ndarray) -> ir.Value:
    dtype = ir.DataType.from_numpy(array.dtype)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape))
