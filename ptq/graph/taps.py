"""Make inner tensors observable: a copy of the model whose outputs are probes of the tensors.

Reading a whole activation out of onnxruntime costs as much as computing it. A probe therefore
reduces a large image-shaped tensor inside the graph, where it lies in the layout of the
convolutions: GlobalMaxPool gives the exact maximum, GlobalMaxPool of the negation the exact
minimum, and a MaxPool with a kernel of 1 and a stride takes a regular sample for the histogram.
A maximum passes over NaN; GlobalAveragePool does not. Small tensors are read whole. (Measured in
KERNELS section 6.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptq.data.feeds import Feed
from ptq.errors import ModelError
from ptq.graph.save import to_bytes

#: A shape in which 0 stands for a dimension that is not known.
Shape = tuple[int, ...]

#: Operators whose float32 result is never negative.
_NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Sqrt", "Exp"})


#: The output that gathers the extremes of every reduced tensor, shape ``(1, extremes, 1, 1)``.
_PREFIX = "ptq_probe/"
EXTREMES = f"{_PREFIX}extremes"


@dataclass(frozen=True, slots=True)
class Probe:
    """Where the values of one tensor come out of the tapped model.

    Attributes:
        tensor: the tensor observed.
        sample: the output that holds some or all of its values.
        hi: where in `EXTREMES` its maximum is; ``None`` if the sample is the whole tensor.
        negated_lo: where in `EXTREMES` minus its minimum is; ``None`` if the sample is the whole
            tensor, or the tensor cannot be negative.
        total: where in `EXTREMES` there is NaN if it holds NaN; ``None`` if the sample is the
            whole tensor.
    """

    tensor: str
    sample: str
    hi: int | None = None
    negated_lo: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TappedModel:
    """A serialized model whose outputs are what the probes name.

    Attributes:
        model: the bytes of the model; external data lies where the float model's does.
        probes: one for each tensor that is not an input of the model.
        inputs: the tapped tensors that are inputs of the model, read from the feeds themselves.
        outputs: the outputs, each once.
        sample_size: about how many values of a large tensor enter its histogram from each feed.
    """

    model: bytes
    probes: tuple[Probe, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sample_size: int


def tap(model: ir.Model, tensors: Sequence[str], *, feed: Feed, sample_size: int) -> TappedModel:
    """Return a copy of the model that puts out probes of the tensors, and nothing else.

    Args:
        model: the model; it is not changed.
        tensors: names of float32 tensors of the main graph.
        feed: one feed; its shapes stand for those to come when strides are chosen.
        sample_size: about how many values of a large tensor to read from each feed.

    Raises:
        ModelError: a tensor does not exist.
    """
    tapped = model.clone()
    values = _values(tapped.graph)
    inputs = {v.name for v in tapped.graph.inputs}
    builder = _Builder(tapped.graph, _shapes(model, feed), sample_size)
    for name in tensors:
        if name not in values:
            raise ModelError(f"tensor '{name}' is not in the model")
        if name not in inputs:
            builder.probe(values[name])
    tapped.graph.outputs[:] = builder.outputs()
    _drop_unread(tapped.graph)
    return TappedModel(
        model=to_bytes(tapped),
        probes=tuple(builder.probes),
        inputs=tuple(t for t in tensors if t in inputs),
        outputs=tuple(v.name or "" for v in tapped.graph.outputs),
        sample_size=sample_size,
    )


class _Builder:
    """Appends probes to a graph."""

    def __init__(self, graph: ir.Graph, shapes: Mapping[str, Shape], sample_size: int) -> None:
        self.graph = graph
        self.shapes = shapes
        self.sample_size = sample_size
        self.probes: list[Probe] = []
        self.samples: list[ir.Value] = []
        self.extremes: list[ir.Value] = []

    def outputs(self) -> list[ir.Value]:
        """Return what the tapped model puts out: the samples, and all extremes as one."""
        if not self.extremes:
            return self.samples
        gathered = ir.node("Concat", self.extremes, attributes={"axis": 1}, name=EXTREMES)
        gathered.outputs[0].name = EXTREMES
        gathered.outputs[0].dtype = ir.DataType.FLOAT
        self.graph.append(gathered)
        return [*self.samples, gathered.outputs[0]]

    def probe(self, value: ir.Value) -> None:
        name = value.name or ""
        stride = self._stride(value)
        if stride < 2:
            self.samples.append(value)
            self.probes.append(Probe(name, sample=name))
            return
        sample = self._append("MaxPool", value, kernel_shape=[1, 1], strides=[stride, stride])
        self.samples.append(sample)
        hi = self._reduced(value, "Max")
        negated_lo = None
        if not _never_negative(value):
            negated_lo = self._reduced(self._append("Neg", value), "Max")
        total = self._reduced(value, "Average")
        self.probes.append(Probe(name, sample.name or "", hi, negated_lo, total))

    def _reduced(self, value: ir.Value, how: Literal["Max", "Average"]) -> int:
        """Reduce to one number, first in the convolutions' layout, and return its place."""
        pooled = self._append(f"Global{how}Pool", value)
        self.extremes.append(self._append("ReduceMax" if how == "Max" else "ReduceSum", pooled))
        return len(self.extremes) - 1

    def _stride(self, value: ir.Value) -> int:
        """Return the spatial stride that leaves about `sample_size` values, 1 for all of them."""
        dims = self.shapes.get(value.name or "", ())
        if len(dims) != 4 or 0 in dims[1:]:
            return 1
        size = prod((dims[0] or 1, *dims[1:]))
        return min(isqrt(size // self.sample_size), *dims[2:])

    def _append(self, op_type: str, value: ir.Value, **attributes: list[int]) -> ir.Value:
        node = ir.node(op_type, [value], attributes=attributes or None)
        node.name = f"{_PREFIX}{(value.name or '').removeprefix(_PREFIX)}/{op_type}"
        node.outputs[0].name = node.name
        node.outputs[0].dtype = ir.DataType.FLOAT
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return node.outputs[0]


def _never_negative(value: ir.Value) -> bool:
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Clip" and len(node.inputs) > 1 and node.inputs[1] is not None:
        lo = node.inputs[1].const_value
        return lo is not None and lo.size == 1 and float(lo.numpy().reshape(())) >= 0.0
    return node.op_type in _NON_NEGATIVE


def _shapes(model: ir.Model, feed: Feed) -> dict[str, Shape]:
    """Return the shapes that this feed would give, as far as ONNX's inference goes."""
    fed = model.clone()
    for value in fed.graph.inputs:
        if value.name in feed:
            value.shape = ir.Shape(np.shape(feed[value.name]))
    ShapeInferencePass()(fed)
    return {
        name: tuple(d if isinstance(d, int) else 0 for d in value.shape)
        for name, value in _values(fed.graph).items()
        if value.shape is not None
    }


def _values(graph: ir.Graph) -> Mapping[str, ir.Value]:
    found = {v.name: v for v in graph.inputs if v.name}
    for node in graph:
        found.update((v.name, v) for v in node.outputs if v.name)
    return found


def _drop_unread(graph: ir.Graph) -> None:
    """Remove the nodes that no output needs: observing an early tensor need not run the rest."""
    kept = {id(v) for v in graph.outputs}
    for node in reversed(list(graph)):
        if any(id(v) in kept or v.uses() for v in node.outputs):
            continue
        graph.remove(node, safe=True)
