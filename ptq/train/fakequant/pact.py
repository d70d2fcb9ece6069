"""PACT: activations are clipped at a bound that is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ptq.train.fakequant.base import ActivationStart, Faked, Parameter, QatMethod, clip
from ptq.train.straight_through import straight_through
from ptq.train.tape import Tape


class Pact(QatMethod, frozen=True, kw_only=True, tag="pact"):
    """PACT, parameterized clipping activation.

    ``y = clip(x, 0, α)``, quantized to ``round(y (2^k - 1) / α) α / (2^k - 1)``. The gradient by x
    is 1 where ``0 < x < α``; that by α is 1 where ``x ≥ α``, and rounding has none. α is one number
    for each tensor, starts where post-training quantization clips, and has its own L2 term.

    A tensor with negative values, which the paper has none of, is clipped to ``[-α, α]``, and α
    gets the gradient of both ends.

    Reference: Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan, "PACT: Parameterized
    Clipping Activation for Quantized Neural Networks", arXiv:1805.06085, 2018, sections 3 and 3.1.
    """

    decay: float = 1e-4
    """The factor of the L2 term of α."""

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """One bound, α."""
        alpha = np.asarray(max(start.hi, -start.lo), np.float32)
        return (Parameter("alpha", alpha, "range", rate=10.0, decay=self.decay, positive=True),)

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Clip, and round what is left."""
        alpha, zero = p["alpha"], start.qtype.middle if start.signed else 0
        codes = float(start.qtype.qmax - zero)
        below = float(start.qtype.qmin - zero)
        lo = tape.op("Mul", alpha, below / codes) if start.signed else 0.0
        y = clip(tape, x, lo, alpha)
        scale = tape.op("Div", alpha, codes)
        # rounded before it is clipped, as the kernel does: codes are the same
        steps = tape.op("Round", tape.op("Div", x, scale))
        kept = clip(tape, steps, below, codes)
        value = straight_through(tape, y, tape.op("Mul", kept, scale))
        point = tape.constant(np.asarray(zero, np.float32)) if start.signed else None
        return Faked(value, scale, point)
