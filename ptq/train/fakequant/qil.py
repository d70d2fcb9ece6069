"""QIL: the interval of values that are quantized is trained."""

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
    Role,
    WeightStart,
    clip,
    steps,
)
from ptq.train.fakequant.channels import bound
from ptq.train.straight_through import rounded, straight_through

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


class Qil(QatMethod, frozen=True, kw_only=True, tag="qil"):
    """Trained intervals of weights and activations: below is pruned, above is clipped.

    Weights: ``t = clip((|w| - (c - d)) / 2d, 0, 1)``, ``q = sign(w) round(t^γ (2^(b-1) - 1))``.
    Rounding has the gradient 1; the interval's center c and half its length d, and γ if it is
    trained, have the gradients of this. The value of a code is trained too, for each channel: the
    paper leaves it to the normalization that follows, which here is folded into the weights.

    c and d are of a layer, in units of where post-training quantization clips each channel. They
    start at 1/2, so that nothing is pruned, and the value of a code at that quantization's step.
    With the value of codes free, nearest levels are best for the squared error, so no other
    interval starts better.

    Activations: the interval begins at 0, ``c = d``, since an integer kernel can subtract only
    what the bias of the layer before subtracts, and that is trained. The value of a code is
    trained apart from the step that codes are made with, ``2d / (2^b - 1)``. A tensor with
    negative values has the zero point of post-training quantization, and is clipped on both sides.

    Reference: Jung, Son, Lee, Son, Han, Kwak, Hwang, Choi, "Learning to Quantize Deep Networks by
    Optimizing Quantization Intervals with Task Loss", CVPR 2019, equations 1 to 5.

    Attributes:
        gamma: γ of weights; where it starts, if it is trained.
        train_gamma: whether γ is trained.
        per_channel: whether each channel of a weight has an interval.
        rate: what the learning rate of intervals and values of codes is multiplied by, for those
            that start at 1; others learn in proportion to where they start.
    """

    paper: ClassVar[str] = (
        "Jung et al., Learning to Quantize Deep Networks by Optimizing Quantization Intervals with "
        "Task Loss, CVPR 2019"
    )

    gamma: Annotated[float, Meta(gt=0)] = 1.0
    train_gamma: bool = False
    per_channel: bool = False
    rate: Annotated[float, Meta(ge=0)] = 3.0

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """Half the length of the interval, and the value of the range of codes."""
        size = start.hi - start.lo
        return (
            self._trained("distance", np.asarray(size / 2), "distance", size / 2),
            self._trained("decoded", np.asarray(size), "range", size),
        )

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Encode with the interval, and decode with the value of codes."""
        qmax = float(start.qtype.qmax)
        lo, hi = (float(q - start.zero_point) for q in (start.qtype.qmin, start.qtype.qmax))
        encode = tape.op("Div", tape.op("Mul", p["distance"], 2.0), qmax)
        inside = clip(tape, tape.op("Div", x, encode), lo, hi)
        codes = straight_through(tape, inside, steps(tape, x, encode, lo, hi))
        scale = tape.op("Div", p["decoded"], qmax)
        zero = tape.constant(np.asarray(start.zero_point, np.float32)) if start.signed else None
        return Faked(tape.op("Mul", codes, scale), scale, zero, encode)

    def weight_parameters(self, start: WeightStart) -> Sequence[Parameter]:
        """Center, distance, value of the largest code by channel, and γ."""
        shape = start.scale.shape
        half = np.full(shape if self.per_channel else (), 0.5, np.float32)
        found = [
            self._trained("center", half, "center", 0.5),
            self._trained("distance", half, "distance", 0.5),
            self._trained("decoded", np.ones(shape, np.float32), "range", 1.0),
        ]
        if self.train_gamma:
            gamma = np.asarray(self.gamma, np.float32)
            found.append(self._trained("gamma", gamma, "exponent", self.gamma))
        return found

    def weight(
        self, tape: Tape, w: ir.Value, p: Mapping[str, ir.Value], start: WeightStart
    ) -> Faked:
        """Encode with the interval, and decode with the value of codes."""
        qmax, unit = float(start.qtype.qmax), tape.constant(bound(start))
        size = tape.op("Div", tape.op("Abs", w), unit)
        pruned = tape.op("Sub", p["center"], p["distance"])
        length = tape.op("Mul", p["distance"], 2.0)
        part = clip(tape, tape.op("Div", tape.op("Sub", size, pruned), length), 0.0, 1.0)
        if self.train_gamma or self.gamma != 1.0:
            part = tape.op("Pow", part, p["gamma"] if self.train_gamma else self.gamma)
        levels = rounded(tape, tape.op("Mul", part, qmax))
        codes = tape.op("Mul", tape.op("Sign", w), levels)
        scale = tape.op("Mul", p["decoded"], tape.op("Div", unit, qmax))
        return Faked(tape.op("Mul", codes, scale), scale)

    def _trained(self, name: str, first: np.ndarray, role: Role, size: float) -> Parameter:
        array, positive = np.asarray(first, np.float32), role != "center"
        return Parameter(name, array, role, rate=self.rate * size, positive=positive)
