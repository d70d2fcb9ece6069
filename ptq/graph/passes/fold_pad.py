"""Fold explicit zero padding into the convolution or pooling that follows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.base import Rewrite
from ptq.graph.passes.edit import (
    bypass,
    constant,
    input_at,
    int_attribute,
    ints_attribute,
    is_op,
    rank,
    text_attribute,
)

#: Operators whose output is never negative, so that padding with zero never wins a maximum.
_NON_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax")


class FoldPad(Rewrite):
    """Fold Pad of zeros along the spatial axes into the ``pads`` of every consumer.

    Legal for Conv; for AveragePool where the padding counts in the mean; for MaxPool, which pads
    with minus infinity, where the tensor is never negative. Nothing is folded unless every
    consumer takes it.
    """

    subject: ClassVar[str] = "pad"
    verb: ClassVar[str] = "folded"

    def apply(self, model: ir.Model) -> int:
        """Fold, and return how many are gone."""
        return sum(_fold(node) for node in model.graph if is_op(node, "Pad"))


def _fold(node: ir.Node) -> bool:
    source, padded = node.inputs[0], node.outputs[0]
    pads = spatial_pads(node)
    uses = list(padded.uses())
    if source is None or pads is None or padded.is_graph_output() or not uses:
        return False
    # a consumer inside a subgraph is no Conv or pooling of this graph; it is left alone
    if any(index or user.graph is not node.graph for user, index in uses):
        return False
    if not all(_takes(user, pads, source) for user, _ in uses):
        return False
    for user, _ in uses:
        _add_pads(user, pads)
    return bypass(node, source)


def spatial_pads(node: ir.Node) -> list[int] | None:
    """Return the pads of the spatial axes, all begins then all ends, as Conv writes them.

    ``None`` unless the Pad puts zeros, a known and non-negative number of them, there only.
    """
    if text_attribute(node, "mode", "constant") != "constant":
        return None
    pads, fill, axes = (constant(input_at(node, index)) for index in (1, 2, 3))
    if input_at(node, 2) is not None and (fill is None or fill.any()):
        return None
    dims = rank(node.inputs[0])
    if pads is None or (input_at(node, 3) is not None and axes is None):
        return None
    if axes is None:
        dims = pads.size // 2
        axes = np.arange(dims)
    if dims is None or dims < 3:
        return None
    axes = axes.reshape(-1) % dims
    if axes.dtype.kind != "i" or pads.size != 2 * axes.size or len({*axes.tolist()}) != axes.size:
        return None
    full = np.zeros((2, dims), dtype=np.int64)
    full[:, axes] = pads.reshape(2, -1)
    if full[:, :2].any() or (full < 0).any():
        return None
    return [int(n) for n in full[:, 2:].reshape(-1)]


def _takes(node: ir.Node, pads: list[int], source: ir.Value) -> bool:
    """Return whether the operator computes the same with the padding as its own."""
    if text_attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    own = _own_pads(node, len(pads))
    if len(own) != len(pads):
        return False
    if is_op(node, "Conv"):
        return True
    if not is_op(node, "AveragePool", "MaxPool") or int_attribute(node, "ceil_mode", 0):
        return False
    kernel = ints_attribute(node, "kernel_shape") * 2
    together = [a + b for a, b in zip(own, pads, strict=True)]
    # onnxruntime wants every pad of a pooling to be smaller than its kernel
    if len(kernel) != len(pads) or any(a >= b for a, b in zip(together, kernel, strict=True)):
        return False
    if any(n != 1 for n in ints_attribute(node, "dilations")):
        return False
    if is_op(node, "MaxPool"):
        return len(node.outputs) == 1 and _is_non_negative(source)
    return int_attribute(node, "count_include_pad", 0) == 1 or not any(own)


def _is_non_negative(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None:
        return False
    if is_op(producer, "Clip"):
        least = constant(input_at(producer, 1))
        return least is not None and bool(least >= 0)
    return is_op(producer, *_NON_NEGATIVE)


def _own_pads(node: ir.Node, count: int) -> list[int]:
    # with auto_pad=VALID the attribute is ignored
    if text_attribute(node, "auto_pad", "NOTSET") == "VALID":
        return [0] * count
    return ints_attribute(node, "pads", [0] * count)


def _add_pads(node: ir.Node, pads: list[int]) -> None:
    together = [a + b for a, b in zip(_own_pads(node, len(pads)), pads, strict=True)]
    node.attributes.pop("auto_pad", None)
    node.attributes.add(ir.AttrInt64s("pads", together))
    if is_op(node, "AveragePool"):
        node.attributes.add(ir.AttrInt64("count_include_pad", 1))
