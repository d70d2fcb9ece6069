"""Turn Constant nodes into initializers, so that every constant is found in one way.

Paddle and PyTorch exports keep whole weights in Constant nodes; a batchnorm behind such a
convolution would otherwise not be folded.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import is_op


class LiftConstants(Rewrite):
    """Turn the Constant nodes of the main graph into initializers of the same name."""

    subject: ClassVar[str] = "constants"
    verb: ClassVar[str] = "lifted to initializers"

    def apply(self, model: ir.Model) -> int:
        """Lift every Constant node; those inside subgraphs stay."""
        graph = model.graph
        lifted: list[ir.Node] = []
        for node in graph:
            if not is_op(node, "Constant"):
                continue
            tensor = _tensor(node)
            if tensor is None:
                continue
            output = node.outputs[0]
            tensor.name = output.name
            value = ir.Value(
                name=output.name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            output.replace_all_uses_with(value, replace_graph_outputs=True)
            graph.register_initializer(value)
            lifted.append(node)
        graph.remove(lifted, safe=True)
        return len(lifted)


def _tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """Return the value of a Constant node; it has exactly one attribute (ONNX Constant-13)."""
    if len(node.attributes) != 1:
        return None
    [(name, attribute)] = node.attributes.items()
    if attribute.is_ref():
        return None
    match name:
        case "value":
            # not as_tensor(): its protocol check costs more than all the rest of lifting
            tensor: ir.TensorProtocol = attribute.value
            return tensor
        case "value_int" | "value_ints":
            return ir.Tensor(np.array(attribute.value, dtype=np.int64))
        case "value_float" | "value_floats":
            return ir.Tensor(np.array(attribute.value, dtype=np.float32))
        case "value_string":
            return ir.StringTensor([_utf8(attribute.value)], shape=ir.Shape(()))
        case "value_strings":
            texts = [_utf8(text) for text in attribute.value]
            return ir.StringTensor(texts, shape=ir.Shape((len(texts),)))
    return None


def _utf8(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
