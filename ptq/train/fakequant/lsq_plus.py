"""LSQ+: the step and the offset of each quantizer are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ptq.train.fakequant.base import ActivationStart, Faked, Parameter, clip
from ptq.train.fakequant.lsq import Lsq, slowed
from ptq.train.straight_through import rounded

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


class LsqPlus(Lsq, frozen=True, kw_only=True, tag="lsq-plus"):
    """Trained steps, and trained offsets of activations with negative values.

    As LSQ, and ``v = s round(clip((x - β) / s, 0, 2^k - 1)) + β``: the gradient by β is 1 outside
    the range and 0 inside. So that kernels stay integer and 0.0 is exact, β is rounded to a
    multiple of the step, ``-z s``, with the gradient of the offset that was not rounded. An
    activation without negative values has no offset, where the paper may train one: above 0 it
    would take 0.0 off the grid, below 0 it would waste codes.

    β starts from the zero point of post-training quantization, and is trained in units of the step
    that it starts with.

    Reference: Bhalgat, Lee, Nagel, Blankevoort, Kwak, "LSQ+: Improving low-bit quantization through
    learnable offsets and better initialization", CVPR Workshops 2020, arXiv:2004.09576, section
    3.1.
    """

    paper: ClassVar[str] = (
        "Bhalgat et al., LSQ+: Improving low-bit quantization through learnable offsets and better "
        "initialization, CVPR workshops 2020"
    )

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """One step; where there are negative values, one offset."""
        if not start.signed:
            return super().activation_parameters(start)
        # an offset of as many steps as there are codes moves as a step does
        first, rate = np.asarray(-start.zero_point, np.float32), self.rate * start.qtype.qmax
        beta = Parameter("offset", first, "offset", rate=rate)
        return *super().activation_parameters(start), beta

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Divide, shift, round, and back."""
        if not start.signed:
            return super().activation(tape, x, p, start)
        qmax, unit = float(start.qtype.qmax), np.asarray(start.scale, np.float32)
        scale = tape.op("Mul", slowed(tape, p["step"], start.size, start.qtype.qmax), unit)
        beta = tape.op("Mul", slowed(tape, p["offset"], start.size, start.qtype.qmax), unit)
        zero = rounded(tape, tape.op("Neg", tape.op("Div", beta, scale)))
        zero = clip(tape, zero, 0.0, qmax)
        # rounding comes before the zero point is added, as in the kernel; an integer moves no tie
        codes = rounded(tape, clip(tape, tape.op("Add", tape.op("Div", x, scale), zero), 0.0, qmax))
        return Faked(tape.op("Mul", tape.op("Sub", codes, zero), scale), scale, zero)
