"""What became of one layer of a model in the graph that onnxruntime runs."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

#: Why a node has no kernel: onnxruntime folds constants and removes what has no effect.
DROPPED = "computed once at load, or dropped"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One node that works on numbers, and the kernel that does its work.

    Attributes:
        name: the node.
        op_type: its operator in the model.
        kernel: the operator type in onnxruntime's optimized graph; empty where no kernel there
            works on numbers for it: it is computed once at load, dropped, or about shapes.
        integer: whether that kernel computes on integers.
        why: the reason if not; empty if so.
        part_of: the layer whose kernel does this one's work too, such as the Conv before a Relu;
            empty where the kernel is its own.
    """

    name: str
    op_type: str
    kernel: str
    integer: bool
    why: str = ""
    part_of: str = ""


def count_layers(layers: Iterable[Layer]) -> tuple[int, int]:
    """Return how many layers run as integer kernels, and how many run at all.

    What is part of another layer, or has no kernel, is not counted.
    """
    own = [layer for layer in layers if layer.kernel and not layer.part_of]
    return sum(layer.integer for layer in own), len(own)
