"""A float model that is fed some of its weights, so that one session tries many."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from ptq.graph.save import to_bytes


def with_weights_fed(model: ir.Model, names: Collection[str]) -> bytes:
    """Return a serialized model in which these initializers are inputs of the same names.

    External data of the others lies where it did.

    Args:
        model: a normalized model; it is not changed.
        names: initializers of its main graph.
    """
    clone = model.clone()
    graph = clone.graph
    for name in names:
        value = graph.initializers[name]
        assert value.const_value is not None
        value.shape = ir.Shape(value.const_value.shape.numpy())
        value.type = ir.TensorType(value.const_value.dtype)
        del graph.initializers[name]
        value.const_value = None
        graph.inputs.append(value)
    return to_bytes(clone)
