"""What scales of weights are computed from in the graph: sums and extremes of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptq.train.fakequant.base import WeightStart
from ptq.train.straight_through import without_gradient

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Operand, Tape


#: No scale falls below this part of that of post-training quantization, which is none of a channel
#: of zeros: the integer bias of such a channel, a multiple of the scale, would overflow.
LEAST = 2.0**-10


def bound(start: WeightStart) -> np.ndarray:
    """Return where post-training quantization clips: float32, it broadcasts over the weight."""
    return np.asarray(start.scale * np.float32(max(start.qtype.qmax, 1)), np.float32)


def reduced(tape: Tape, reduction: str, x: Operand, start: WeightStart) -> ir.Value:
    """Return a reduction of a weight over each channel that has a scale of its own.

    Args:
        tape: grows.
        reduction: the operator, like ``ReduceMax``.
        x: of the shape of the weight.
        start: the weight.
    """
    axes = [i for i in range(start.array.ndim) if not (start.scale.ndim and i == start.axis)]
    return tape.op(reduction, x, axes, keepdims=1) if axes else tape.op("Identity", x)


def gain(tape: Tape, w: ir.Value, levels: ir.Value, start: WeightStart) -> ir.Value:
    """Return what levels are multiplied by to be nearest to a weight: ``<w, q> / <q, q>``.

    No gradient goes through it: where it is, the squared error does not change with it.

    Args:
        tape: grows.
        w: the weight.
        levels: of its shape, not all 0 in any channel.
        start: the weight as it was.
    """
    of_both = reduced(tape, "ReduceSum", tape.op("Mul", w, levels), start)
    of_one = reduced(tape, "ReduceSum", tape.op("Mul", levels, levels), start)
    least = tape.constant(np.asarray(bound(start) * np.float32(LEAST), np.float32))
    return without_gradient(tape, tape.op("Max", tape.op("Div", of_both, of_one), least))
