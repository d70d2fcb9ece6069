"""WRPN: weights clipped to [-1, 1], activations to [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from ptq.train.fakequant.base import (
    ActivationStart,
    Faked,
    Parameter,
    QatMethod,
    WeightStart,
    fixed_activation,
    fixed_weight,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


class Wrpn(QatMethod, frozen=True, kw_only=True, tag="wrpn"):
    """Weights and activations at fixed scales: the network alone is trained.

    ``w = round((2^(k-1) - 1) clip(w, -1, 1)) / (2^(k-1) - 1)`` and
    ``a = round((2^k - 1) clip(a, 0, 1)) / (2^k - 1)``; the gradient is 1 inside the clipping range,
    and rounding has none. The paper trains from the start, so that the network adapts to these
    ranges. A pretrained one does not fit them: here, 1 is where post-training quantization clips
    the channel of the weight, or the activation; tensors with negative values keep the zero point
    they have there. That the paper widens layers is no part of this.

    Reference: Mishra, Nurvitadhi, Cook, Marr, "WRPN: Wide Reduced-Precision Networks", ICLR 2018,
    section 4.
    """

    paper: ClassVar[str] = "Mishra et al., WRPN: Wide Reduced-Precision Networks, ICLR 2018"

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """Nothing."""
        return ()

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Clip to the range, and round."""
        return fixed_activation(tape, x, start)

    def weight(
        self, tape: Tape, w: ir.Value, p: Mapping[str, ir.Value], start: WeightStart
    ) -> Faked:
        """Clip to the range, and round."""
        return fixed_weight(tape, w, start)
