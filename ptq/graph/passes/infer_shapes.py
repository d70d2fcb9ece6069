"""Infer the shapes and types of inner tensors from those of the inputs."""

from __future__ import annotations

from typing import ClassVar

import onnx.shape_inference
import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.skeleton import Skeleton


class InferShapes(Rewrite):
    """Replace the declared shapes of inner tensors by inferred ones.

    The declared ones are not trusted: people make a batch dimension dynamic by editing the inputs
    only, and a stale shape would then be folded into the graph. Outputs of other domains, whose
    shapes onnx cannot infer, keep what is declared, as do the graph's inputs and outputs.
    """

    subject: ClassVar[str] = "shapes"
    verb: ClassVar[str] = "inferred"

    def apply(self, model: ir.Model) -> int:
        """Infer; a model that defeats inference keeps its shapes, for they are only hints."""
        inner = {
            value.name: value
            for node in model.graph
            if node.domain == ""
            for value in node.outputs
            if value.name and not value.is_graph_output()
        }
        declared = {name: (value.shape, value.type) for name, value in inner.items()}
        try:
            for value in inner.values():
                value.shape = None
            inferred = onnx.shape_inference.infer_shapes(
                Skeleton(model).proto, check_type=False, strict_mode=False, data_prop=True
            )
        except (RuntimeError, ValueError, onnx.shape_inference.InferenceError):
            for name, (shape, type_) in declared.items():
                inner[name].shape, inner[name].type = shape, type_
            return 0
        for info in inferred.graph.value_info:
            if info.name in inner:
                ir.serde.deserialize_value_info_proto(info, inner[info.name])
        return sum(value.shape != declared[name][0] for name, value in inner.items())
