"""A quantized model whose activation scales are inputs, so that a search can turn them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq.graph.emit_qdq import CLIP_BOUNDS
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
        model: a model that `emit_qdq` wrote; it is changed.
        scales: the initializer that holds the scale, by quantized activation.
        folder: where the model's external data lies.
    """
    graph = model.graph
    for node in list(graph):
        if CLIP_BOUNDS in node.meta:
            _clip_before(graph, node)
    for name in scales.values():
        scale = graph.initializers.pop(name)
        assert scale.const_value is not None
        scale.type, scale.shape = ir.TensorType(scale.const_value.dtype), ir.Shape(())
        scale.const_value = None
        graph.inputs.append(scale)
    outputs = tuple(v.name or "" for v in graph.outputs)
    return ScaledModel(to_bytes(model), dict(scales), outputs, folder)



def _clip_before(graph: ir.Graph, quantize: ir.Node) -> None:
    """Clip the values instead of the codes: which codes the bounds are depends on the scale."""
    value = quantize.inputs[0]
    assert value is not None
    bounds = []
    for bound in quantize.meta[CLIP_BOUNDS]:
        name = f"{quantize.name}/bound_{len(bounds)}"
        tensor = ir.tensor(np.asarray(bound, np.float32), name=name)
        bounds.append(ir.Value(name=name, const_value=tensor))
        graph.register_initializer(bounds[-1])
    clip = ir.node("Clip", [value, *bounds], name=f"{quantize.name}/Clip")
    clip.outputs[0].name = f"{quantize.name}/clipped"
    graph.insert_before(quantize, clip)
    quantize.replace_input_with(0, clip.outputs[0])
    codes = quantize.outputs[0]
    for reader in tuple(codes.consumers()):
        if reader.op_type == "Clip":
            reader.outputs[0].replace_all_uses_with(codes)
            graph.remove(reader, safe=True)
