"""What is known of a network that was run once: every shape, and the integers in it.

A training graph is made for one batch size, so that all shapes are numbers. They are not inferred:
the network is run once, with the shape of every value as an output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptq.data.feeds import Feed
from ptq.graph.passes.edit import constant
from ptq.graph.save import to_bytes
from ptq.runtime.session import open_session, run

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})


@dataclass(frozen=True, slots=True)
class Trace:
    """One run of a network.

    Attributes:
        shapes: of the values that are not constants, by name.
        integers: the values that are no floats, by name.
    """

    shapes: Mapping[str, tuple[int, ...]]
    integers: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of_values(cls, values: Mapping[str, np.ndarray]) -> Trace:
        """Return the trace of a run of which all values are known."""
        whole = {n: v for n, v in values.items() if not np.issubdtype(v.dtype, np.floating)}
        return cls({name: tuple(v.shape) for name, v in values.items()}, whole)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Return the shape of a value of the network."""
        if value.const_value is not None:
            return tuple(int(n) for n in value.const_value.shape.numpy())
        return self.shapes[value.name or ""]

    def is_float(self, value: ir.Value) -> bool:
        """Return whether a value consists of floats."""
        known = self.array(value)
        return known is None or np.issubdtype(known.dtype, np.floating)

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """Return the numbers of a constant, or of a value that is no float, if they are known."""
        if value is None:
            return None
        known = constant(value)
        return known if known is not None else self.integers.get(value.name or "")


def trace(model: ir.Model, feed: Feed, folder: Path | None = None) -> Trace:
    """Run a network once and return its trace.

    Args:
        model: the network; it is not changed.
        feed: one array for each input; what the batch size is.
        folder: where external data lies.

    Raises:
        VerificationError: onnxruntime refuses the model.
        DataError: onnxruntime fails on the feed.
    """
    tapped = model.clone()
    ShapeInferencePass()(tapped)  # types are enough: shapes may depend on values
    graph = tapped.graph
    shapes: dict[str, str] = {}
    others: list[str] = []
    del graph.outputs[:]
    for node in list(graph):
        for value in node.outputs:
            if not value.name or (not value.uses() and node.op_type == "Constant"):
                continue
            if value.dtype in _FLOATS:
                asked = ir.node("Shape", [value], name=f"ptq_shape/{value.name}")
                asked.outputs[0].name = asked.name
                asked.outputs[0].dtype = ir.DataType.INT64
                graph.append(asked)
                graph.outputs.append(asked.outputs[0])
                shapes[asked.name or ""] = value.name
            else:
                graph.outputs.append(value)
                others.append(value.name)
    session = open_session(to_bytes(tapped), optimization="disabled", folder=folder)
    names = [*shapes, *others]
    found = dict(zip(names, run(session, feed, names, where="the traced batch"), strict=True))
    known = {name: np.asarray(found[name]) for name in others}
    traced = Trace.of_values({**known, **{name: np.asarray(a) for name, a in feed.items()}})
    measured = {value: tuple(int(n) for n in found[asked]) for asked, value in shapes.items()}
    return Trace({**traced.shapes, **measured}, traced.integers)
