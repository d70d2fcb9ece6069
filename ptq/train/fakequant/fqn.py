"""FQN: ranges are moving averages, and nothing but the network is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.train.fakequant.base import (
    ActivationStart,
    Faked,
    Parameter,
    QatMethod,
    WeightStart,
    clip,
    steps,
)
from ptq.train.fakequant.channels import LEAST, reduced
from ptq.train.straight_through import straight_through, without_gradient

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


class Fqn(QatMethod, frozen=True, kw_only=True, tag="fqn"):
    """Activations between moving averages of their extremes; weights never clipped.

    ``lb = γ lb + (1 - γ) min(A)`` and ``ub = γ ub + (1 - γ) max(A)`` over the batches A; a batch
    is quantized between the averages of those before it. Weights are quantized between their
    extremes, which follow them. Rounding has the gradient 1; outside its range, an activation has
    none. Batch normalization is folded and frozen before.

    The averages start from post-training quantization. Weights are symmetric about 0, as the
    integer kernels here are fast with, and have a scale for each channel where post-training
    quantization has one.

    Reference: Li, Wang, Liang, Qin, Yan, Fan, "Fully Quantized Network for Object Detection", CVPR
    2019, section 3.

    Attributes:
        decay: γ.
    """

    paper: ClassVar[str] = "Li et al., Fully Quantized Network for Object Detection, CVPR 2019"

    decay: Annotated[float, Meta(ge=0, lt=1)] = 0.999

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """The averages, of which the lower stays 0 where nothing is negative."""
        upper = Parameter("upper", np.asarray(start.hi, np.float32), "state")
        if not start.signed:
            return (upper,)
        return Parameter("lower", np.asarray(start.lo, np.float32), "state"), upper

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Clip to the averages, and round."""
        qmax, states = float(start.qtype.qmax), {"upper": self._moved(tape, "ReduceMax", x, p)}
        least = start.scale * LEAST * qmax
        hi, lo = tape.op("Max", p["upper"], least), tape.constant(np.zeros((), np.float32))
        scale, zero = tape.op("Div", hi, qmax), None
        from_lo, to_hi = tape.value(0.0), tape.value(qmax)
        if start.signed:
            states["lower"] = self._moved(tape, "ReduceMin", x, p)
            lo = tape.op("Min", p["lower"], 0.0)
            scale = tape.op("Div", tape.op("Sub", hi, lo), qmax)
            zero = tape.op("Round", tape.op("Neg", tape.op("Div", lo, scale)))
            from_lo, to_hi = tape.op("Neg", zero), tape.op("Sub", qmax, zero)
        kept = steps(tape, x, scale, from_lo, to_hi)
        value = straight_through(tape, clip(tape, x, lo, hi), tape.op("Mul", kept, scale))
        return Faked(value, scale, zero, states=states)

    def _moved(
        self, tape: Tape, reduction: str, x: ir.Value, p: Mapping[str, ir.Value]
    ) -> ir.Value:
        old = p["upper" if reduction == "ReduceMax" else "lower"]
        seen = tape.op(reduction, x, keepdims=0)
        kept = tape.op("Mul", old, self.decay)
        return tape.op("Add", kept, tape.op("Mul", seen, 1.0 - self.decay))

    def weight(
        self, tape: Tape, w: ir.Value, p: Mapping[str, ir.Value], start: WeightStart
    ) -> Faked:
        """Round at a step that reaches the largest weight of the channel."""
        most = reduced(tape, "ReduceMax", tape.op("Abs", w), start)
        least = tape.constant(np.asarray(start.scale * np.float32(LEAST), np.float32))
        scale = tape.op("Div", most, float(start.qtype.qmax))
        scale = without_gradient(tape, tape.op("Max", scale, least))
        codes = tape.op("Round", tape.op("Div", w, scale))
        return Faked(straight_through(tape, w, tape.op("Mul", codes, scale)), scale)
