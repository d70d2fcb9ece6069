"""LSQ: the step of each quantizer is trained."""

from __future__ import annotations

import math
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
)
from ptq.train.straight_through import rounded, straight_through

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


class Lsq(QatMethod, frozen=True, kw_only=True, tag="lsq"):
    """Trained steps of weights and activations.

    ``v = s round(clip(x / s, -Q_N, Q_P))``, rounding with the gradient 1: that by s is
    ``round(x/s) - x/s`` inside the range, ``-Q_N`` and ``Q_P`` outside. It is multiplied by
    ``1 / √(N Q_P)``, N being how many values share the step: of a weight, or of an activation in
    one sample. Q_N and Q_P are the ends of the grid around the zero point of post-training
    quantization, which stays.

    Steps start from post-training quantization, not from the paper's ``2 E|x| / √Q_P``, and are
    trained in units of where they start: Adam moves a parameter by the learning rate, whatever its
    size.
    Weights have a step for each channel, where post-training quantization has one; the paper has
    one for each layer.

    Reference: Esser, McKinstry, Bablani, Appuswamy, Modha, "Learned Step Size Quantization", ICLR
    2020, equations 1 to 5.

    Attributes:
        rate: what the learning rate of a step is multiplied by.
        per_channel: whether the step of each channel is trained, or one multiple of them all.
    """

    paper: ClassVar[str] = "Esser et al., Learned Step Size Quantization, ICLR 2020"

    rate: Annotated[float, Meta(ge=0)] = 3.0
    per_channel: bool = True

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """One step."""
        return (self._step(np.ones((), np.float32)),)

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Divide, round, and multiply."""
        lo, hi = (float(q - start.zero_point) for q in (start.qtype.qmin, start.qtype.qmax))
        step = slowed(tape, p["step"], start.size, start.qtype.qmax)
        scale = tape.op("Mul", step, np.asarray(start.scale, np.float32))
        codes = rounded(tape, clip(tape, tape.op("Div", x, scale), lo, hi))
        zero = tape.constant(np.asarray(start.zero_point, np.float32)) if start.signed else None
        return Faked(tape.op("Mul", codes, scale), scale, zero)

    def weight_parameters(self, start: WeightStart) -> Sequence[Parameter]:
        """The steps of the channels, or one multiple of them."""
        first = np.ones(start.scale.shape if self.per_channel else (), np.float32)
        return (self._step(first),)

    def _step(self, first: np.ndarray) -> Parameter:
        return Parameter("step", first, "range", rate=self.rate, positive=True)

    def weight(
        self, tape: Tape, w: ir.Value, p: Mapping[str, ir.Value], start: WeightStart
    ) -> Faked:
        """Divide, round, and multiply."""
        qtype = start.qtype
        sharing = start.array.size // start.scale.size if self.per_channel else start.array.size
        step = slowed(tape, p["step"], sharing, qtype.qmax)
        scale = tape.op("Mul", step, start.scale)
        codes = clip(tape, tape.op("Div", w, scale), qtype.qmin, qtype.qmax)
        return Faked(tape.op("Mul", rounded(tape, codes), scale), scale)


def slowed(tape: Tape, step: ir.Value, sharing: int, qmax: int) -> ir.Value:
    """Return a step, of which the gradient is divided by ``√(N Q_P)``.

    Args:
        tape: grows.
        step: as it is trained.
        sharing: N, how many values share it.
        qmax: Q_P, the largest code.
    """
    by = 1.0 / math.sqrt(max(sharing * qmax, 1))
    return straight_through(tape, tape.op("Mul", step, by), step)
