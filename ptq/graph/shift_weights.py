"""Give weights zero point 1, for CPUs on which onnxruntime then takes a faster kernel.

With zero points of 0 it takes a convolution kernel of its own; with others it gathers the input
into a matrix and multiplies, which on CPUs with AMX is up to 1.6 times faster for wide layers and
on others slower (KERNELS section 2). The values stay what they are, but for codes of 127, which
lose one step.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

#: Fewer products for each output than this are not worth gathering.
_LEAST_PRODUCTS = 256

_LARGEST = 127


def wide_convolutions(model: ir.Model) -> tuple[str, ...]:
    """Return the convolutions of a float model whose weights may be worth shifting."""
    return tuple(node.name or "" for node in model.graph if _is_wide(node))


def shift_weights(model: ir.Model, names: Collection[str]) -> int:
    """Shift the weights of these convolutions of a quantized model, in place; return how many.

    Args:
        model: what `emit_qdq` wrote.
        names: of the convolutions. One whose weight has zero points already, or is read by another
            node too, is left as it is.
    """
    nodes = [n for n in model.graph if n.name in names and n.op_type == "Conv"]
    return sum(_shift(node) for node in nodes)


def _is_wide(node: ir.Node) -> bool:
    group = node.attributes.get("group")
    if node.domain not in ("", "ai.onnx") or node.op_type != "Conv":
        return False
    if group is not None and group.value != 1:
        return False
    weight = node.inputs[1]
    if weight is None or weight.const_value is None:
        return False
    return int(np.prod(weight.const_value.shape.numpy()[1:])) >= _LEAST_PRODUCTS


def _shift(node: ir.Node) -> bool:
    weight = node.inputs[1]
    unpacked = weight.producer() if weight is not None else None
    if unpacked is None or unpacked.op_type != "DequantizeLinear" or len(unpacked.inputs) < 3:
        return False
    codes, zero_point = unpacked.inputs[0], unpacked.inputs[2]
    if codes is None or zero_point is None or len(unpacked.outputs[0].uses()) != 1:
        return False
    if codes.const_value is None or zero_point.const_value is None or len(codes.uses()) != 1:
        return False
    old, zeros = codes.const_value.numpy(), zero_point.const_value.numpy()
    if old.dtype != np.int8 or zeros.any() or len(zero_point.uses()) != 1:
        return False
    shifted = np.minimum(old.astype(np.int16) + 1, _LARGEST).astype(np.int8)
    codes.const_value = ir.tensor(shifted, name=codes.name)
    zero_point.const_value = ir.tensor(np.ones_like(zeros), name=zero_point.name)
    return True
