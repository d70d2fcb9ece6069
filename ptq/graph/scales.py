"""A quantized model whose activation scales are inputs, so that a search can turn them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from ptq.graph.save import to_bytes


@dataclass(frozen=True, slots=True, eq=False)
class ScaledModel:
    """A serialized model with scales for inputs.

    Attributes:
        model: the bytes.
        inputs: name of the input that holds the scale, by tensor.
        outputs: the model's outputs, in order.
        folder: where its external data lies.
    """

    model: bytes
    inputs: dict[str, str]
    outputs: tuple[str, ...]
    folder: Path | None


def with_scales_as_inputs(
    model: ir.Model, scales: Mapping[str, str], folder: Path | None
) -> ScaledModel:
    """Return the quantized model with every activation scale turned into an input.

    Args:
        model: what `emit_qdq` wrote without absorbing Relu and Clip; it is changed.
        scales: the initializer that holds the scale, by quantized activation.
        folder: where the model's external data lies.
    """
    graph = model.graph
    for name in scales.values():
        scale = graph.initializers.pop(name)
        assert scale.const_value is not None
        scale.type, scale.shape = ir.TensorType(scale.const_value.dtype), ir.Shape(())
        scale.const_value = None
        graph.inputs.append(scale)
    outputs = tuple(v.name or "" for v in graph.outputs)
    return ScaledModel(to_bytes(model), dict(scales), outputs, folder)
