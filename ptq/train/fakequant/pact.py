"""PACT: activations are clipped at a bound that is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.train.fakequant.base import ActivationStart, Faked, Parameter, QatMethod, clip, steps
from ptq.train.straight_through import straight_through

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


#: Steps of a grid of 4 bits.
_STEPS = 15


class Pact(QatMethod, frozen=True, kw_only=True, tag="pact"):
    """Activations clipped at a trained bound; weights at fixed scales.

    ``y = clip(x, 0, α)``, quantized to ``round(y (2^k - 1) / α) α / (2^k - 1)``. The gradient by x
    is 1 where ``0 < x < α``; that by α is 1 where ``x ≥ α``, and rounding has none. α is one number
    for each tensor, starts where post-training quantization clips, and has its own L2 term.

    A tensor with negative values, which the paper has none of, is clipped to ``[β, α]`` with a
    second trained bound β, the zero point being what ``-β`` is rounded to in steps; or to
    ``[-α, α]``, with one step more below, and α gets the gradient of both ends.

    Reference: Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan, "PACT: Parameterized
    Clipping Activation for Quantized Neural Networks", arXiv:1805.06085, 2018, sections 3 and 3.1.

    Attributes:
        decay: the factor of the L2 term of the bounds, of 4 bits. Others have it in proportion to
            the square of their step, as the error of rounding, which the term stands for: the
            bounds have no gradient of it. With one factor for all widths, 8 bits would be clipped
            as if they were 4.
        rate: what the learning rate of a bound is multiplied by, for a bound that starts at 1;
            others learn in proportion to where they start.
        mirrored: whether a tensor with negative values has one bound or two.
    """

    paper: ClassVar[str] = (
        "Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, "
        "arXiv:1805.06085, 2018"
    )

    decay: Annotated[float, Meta(ge=0)] = 1e-4
    rate: Annotated[float, Meta(ge=0)] = 3.0
    mirrored: bool = False

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """One bound, α; or β and α."""
        if start.signed and not self.mirrored:
            size = start.hi - start.lo
            beta = self._bound("beta", start.lo, size, start)
            return beta, self._bound("alpha", start.hi, size, start)
        bound = max(start.hi, -start.lo)
        return (self._bound("alpha", bound, bound, start),)

    def _bound(self, name: str, value: float, size: float, start: ActivationStart) -> Parameter:
        rate, array = self.rate * size, np.asarray(value, np.float32)
        decay = self.decay * (_STEPS / start.qtype.qmax) ** 2
        positive = name == "alpha"
        return Parameter(name, array, "range", rate=rate, decay=decay, positive=positive)

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Clip, and round what is left."""
        alpha, qmax = p["alpha"], float(start.qtype.qmax)
        if start.signed and not self.mirrored:
            return self._between(tape, x, p, qmax)
        zero = start.qtype.middle if start.signed else 0
        above, below = qmax - zero, float(-zero)
        lo = tape.op("Mul", alpha, below / above) if start.signed else 0.0
        scale = tape.op("Div", alpha, above)
        kept = steps(tape, x, scale, below, above)
        value = straight_through(tape, clip(tape, x, lo, alpha), tape.op("Mul", kept, scale))
        point = tape.constant(np.asarray(zero, np.float32)) if start.signed else None
        return Faked(value, scale, point)

    @staticmethod
    def _between(tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], qmax: float) -> Faked:
        beta, alpha = tape.op("Min", p["beta"], 0.0), p["alpha"]
        scale = tape.op("Div", tape.op("Sub", alpha, beta), qmax)
        zero = tape.op("Round", tape.op("Neg", tape.op("Div", beta, scale)))
        kept = steps(tape, x, scale, tape.op("Neg", zero), tape.op("Sub", qmax, zero))
        value = straight_through(tape, clip(tape, x, beta, alpha), tape.op("Mul", kept, scale))
        return Faked(value, scale, zero)
