"""What is made small: how far a quantized network is from the float one, or from labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import int_attribute, is_op
from ptq.train.tape import Tape

TargetKind = Literal["kl", "mse"]


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor of the float network that the quantized one is to have as well.

    Attributes:
        tensor: its name.
        kind: whether it is class scores, of which the divergence counts, or its squared error does.
        signal: mean of its squares, which the squared error is divided by.
    """

    tensor: str
    kind: TargetKind
    signal: float = 1.0


def score_tensor(output: ir.Value) -> ir.Value | None:
    """Return the class scores behind an output that is their softmax over the last axis."""
    node = output.producer()
    if not is_op(node, "Softmax", "LogSoftmax"):
        return None
    assert node is not None
    axis, rank = int_attribute(node, "axis", -1), output.shape and len(output.shape)
    if axis not in (-1, rank - 1 if rank else -1):
        return None
    return node.inputs[0]


def divergence(tape: Tape, scores: ir.Value, target: ir.Value, temperature: float) -> ir.Value:
    """Return the divergence of the classes from those of the target, a mean over the batch.

    ``T² Σ p log(p / q)`` with ``p = softmax(target / T)`` and ``q = softmax(scores / T)``.

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    arXiv:1503.02531, 2015, section 2.
    """
    found, wanted = (
        tape.op("LogSoftmax", tape.op("Div", x, float(temperature)), axis=-1)
        for x in (scores, target)
    )
    ratio = tape.op("Mul", tape.op("Exp", wanted), tape.op("Sub", wanted, found))
    summed = tape.op("ReduceSum", ratio, [-1], keepdims=0)
    return tape.op("Mul", tape.op("ReduceMean", summed, keepdims=0), float(temperature) ** 2)


def squared_error(tape: Tape, found: ir.Value, target: ir.Value, signal: float) -> ir.Value:
    """Return the mean squared error as a share of the signal."""
    error = tape.op("Sub", found, target)
    mean = tape.op("ReduceMean", tape.op("Mul", error, error), keepdims=0)
    return tape.op("Div", mean, float(signal))


def cross_entropy(tape: Tape, scores: ir.Value, labels: ir.Value, classes: int) -> ir.Value:
    """Return the cross entropy of labels, int64 of shape ``(batch,)``, a mean over the batch."""
    logs = tape.op("LogSoftmax", scores, axis=-1)
    hot = tape.op("OneHot", labels, [classes], np.asarray([0.0, 1.0], tape.dtype), axis=-1)
    chosen = tape.op("ReduceSum", tape.op("Mul", logs, hot), [-1], keepdims=0)
    return tape.op("Neg", tape.op("ReduceMean", chosen, keepdims=0))


def mean_loss(tape: Tape, terms: Sequence[ir.Value]) -> ir.Value:
    """Return the mean of losses."""
    total = terms[0] if len(terms) == 1 else tape.op("Sum", *terms)
    return tape.op("Mul", total, 1.0 / len(terms))
