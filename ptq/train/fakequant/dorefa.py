"""DoReFa: weights warped by tanh, activations clipped to [0, 1]."""

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
)
from ptq.train.fakequant.channels import LEAST, bound, gain, reduced
from ptq.train.straight_through import rounded, straight_through, without_gradient

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


class Dorefa(QatMethod, frozen=True, kw_only=True, tag="dorefa"):
    """Weights warped by tanh onto levels without 0, or binary; activations at fixed scales.

    ``w = 2 round((2^k - 1) (tanh(w) / (2 max |tanh w|) + 1/2)) / (2^k - 1) - 1``; of one bit,
    ``sign(w)``. ``a = round((2^k - 1) clip(a, 0, 1)) / (2^k - 1)``. Rounding and sign have the
    gradient 1, tanh has its own, and the maximum is taken as a constant.

    The paper trains from the start, and normalizes after each layer. For a network that was
    trained in float and has its normalization folded into its weights, three things are added:
    tanh is taken of weights, and clipping of activations, in units of where post-training
    quantization clips them (weights by channel, where it does so); the maximum is that of a
    channel; and the levels of a channel are multiplied by their least-squares gain, which for one
    bit is ``E|w|``, as in the paper, of a channel. Activations with negative values keep the zero
    point of post-training quantization. Gradients are not quantized.

    The levels are odd multiples of ``1 / (2^k - 1)``, so integer weights of k bits take k + 1:
    eight do not fit.

    Reference: Zhou, Wu, Ni, Zhou, Wen, Zou, "DoReFa-Net: Training Low Bitwidth Convolutional
    Neural Networks with Low Bitwidth Gradients", arXiv:1606.06160, 2016, equations 7 to 11.
    """

    paper: ClassVar[str] = (
        "Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low "
        "Bitwidth Gradients, arXiv:1606.06160, 2016"
    )
    weight_bits: ClassVar[range] = range(1, 8)

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
        """Warp, round, and multiply by the gain."""
        top = float(2**start.qtype.bits - 1)
        codes = _signs(tape, w) if top == 1 else _warped(tape, w, top, start)
        scale = gain(tape, w, codes, start)
        value = tape.op("Mul", codes, scale)
        # with a gain and a sign, what is differentiated is w itself
        return Faked(straight_through(tape, w, value) if top == 1 else value, scale)


def _signs(tape: Tape, w: ir.Value) -> ir.Value:
    return tape.op("Where", tape.op("Less", w, 0.0), -1.0, 1.0)


def _warped(tape: Tape, w: ir.Value, top: float, start: WeightStart) -> ir.Value:
    """Return codes, odd from ``-top`` to ``top``."""
    warped = tape.op("Tanh", tape.op("Div", w, tape.constant(bound(start))))
    most = tape.op("Max", reduced(tape, "ReduceMax", tape.op("Abs", warped), start), LEAST)
    part = tape.op("Div", warped, tape.op("Mul", without_gradient(tape, most), 2.0))
    level = rounded(tape, tape.op("Mul", tape.op("Add", part, 0.5), top))
    return tape.op("Sub", tape.op("Mul", level, 2.0), top)
