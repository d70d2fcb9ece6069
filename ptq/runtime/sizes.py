"""How large the inner tensors of a model are on a feed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from ptq.data.feeds import Feed
from ptq.graph.save import to_bytes
from ptq.graph.types import Model
from ptq.runtime.session import open_session, run


def tensor_shapes(
    model: Model, tensors: Iterable[str], feed: Feed, *, folder: Path | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of some tensors, from one run of the model.

    Args:
        model: the graph; it is not changed.
        tensors: names of tensors of its main graph; graph inputs may be among them.
        feed: what to run.
        folder: where external data lies.
    """
    tapped = model.clone()
    graph = tapped.graph
    there = {v.name for v in graph.outputs}
    values = {v.name: v for node in graph for v in node.outputs}
    shapes = {name: tuple(array.shape) for name, array in feed.items()}
    wanted = [t for t in dict.fromkeys(tensors) if t not in shapes]
    for name in wanted:
        if name not in there:
            value = values[name]
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
            graph.outputs.append(value)
    if wanted:
        session = open_session(to_bytes(tapped), folder=folder)
        found = run(session, feed, wanted)
        shapes |= {n: tuple(array.shape) for n, array in zip(wanted, found, strict=True)}
    return shapes
