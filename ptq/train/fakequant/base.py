"""What a trained quantizer is: its parameters, and its forward pass in standard operators.

The gradient is not written down. It follows from the forward pass, in which `straight_through` says
where the gradient of another value is to be taken. Nor is the export: scale, zero point and codes
are what the forward pass computes of the trained parameters, so that the integer model reproduces
the network that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
import numpy as np

from ptq.errors import ConfigError
from ptq.numerics.affine import QTensor
from ptq.numerics.qtype import QType
from ptq.train.straight_through import rounded, straight_through, without_gradient

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Operand, Tape


#: What a parameter is. A state is not trained: the forward pass puts out what it becomes.
Role = Literal["weight", "bias", "range", "offset", "center", "distance", "exponent", "state"]


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """One trainable array.

    Attributes:
        name: unique among those of a quantizer; later, of the network.
        start: float32, its first value.
        role: what it is.
        rate: what the learning rate is multiplied by.
        decay: the factor λ of its own L2 regularisation: λ p is added to the gradient.
        positive: whether it has to stay above 0.
    """

    name: str
    start: np.ndarray
    role: Role
    rate: float = 1.0
    decay: float = 0.0
    positive: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ActivationStart:
    """An activation tensor as post-training quantization leaves it.

    Attributes:
        tensor: its name.
        qtype: the grid, unsigned: ``uint4`` has the codes 0 to 15.
        scale: the step.
        zero_point: the code of 0.0; 0 where nothing is negative.
        size: how many values one sample has.
    """

    tensor: str
    qtype: QType
    scale: float
    zero_point: int
    size: int = 1

    @property
    def signed(self) -> bool:
        """Whether there are negative values."""
        return self.zero_point > self.qtype.qmin

    @property
    def lo(self) -> float:
        """The lowest value that has a code."""
        return self.scale * (self.qtype.qmin - self.zero_point)

    @property
    def hi(self) -> float:
        """The highest value that has a code."""
        return self.scale * (self.qtype.qmax - self.zero_point)


@dataclass(frozen=True, slots=True, eq=False)
class WeightStart:
    """A weight as post-training quantization leaves it.

    Attributes:
        name: of the weight.
        array: float32.
        tensor: its codes and scales; the zero points are 0.
        axis: that of the output channels, where a scale for each is allowed.
    """

    name: str
    array: np.ndarray
    tensor: QTensor
    axis: int | None

    @property
    def qtype(self) -> QType:
        """The grid, signed: narrow ones lack the lowest code."""
        return self.tensor.qparams.qtype

    def along(self, values: np.ndarray) -> np.ndarray:
        """Return one number for each channel in a shape that broadcasts over the weight."""
        if values.ndim == 0 or self.axis is None:
            return values
        return values.reshape([-1 if i == self.axis else 1 for i in range(self.array.ndim)])

    @property
    def scale(self) -> np.ndarray:
        """Float32, the step, of a shape that broadcasts over the weight."""
        return self.along(np.asarray(self.tensor.qparams.scale, np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Faked:
    """What quantizing and dequantizing makes of a tensor.

    Attributes:
        value: of its shape.
        scale: what a code is multiplied by: ``value`` is ``scale · (codes - zero_point)``. Of a
            weight, it broadcasts over the weight.
        zero_point: an integer, as a float, of shape ``()``; ``None`` for 0. Weights have none.
        encode: the step that codes are made with, where it is another one; activations only.
        states: what states become, by their name.
    """

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None = None
    encode: ir.Value | None = None
    states: Mapping[str, ir.Value] = field(default_factory=dict)


class QatMethod(msgspec.Struct, frozen=True, kw_only=True, tag_field="method"):
    """A way of quantizing a network while it is trained. Its fields are its options.

    Weights are by default rounded at the scales of post-training quantization, which stay; the
    gradient of a weight goes through where it is not clipped.

    Attributes:
        paper: where the method comes from.
        weight_bits: the widths of weights that it is defined for.
        activation_bits: likewise of activations.
    """

    paper: ClassVar[str] = ""
    weight_bits: ClassVar[range] = range(2, 9)
    activation_bits: ClassVar[range] = range(2, 9)

    def check_widths(self, weights: int, activations: int) -> None:
        """Refuse what the method is not defined for.

        Args:
            weights: bits of the weights that are trained.
            activations: bits of the activations.

        Raises:
            ConfigError: there is no such quantizer.
        """
        asked = ("weights", weights, self.weight_bits), (
            "activations", activations, self.activation_bits,
        )  # fmt: skip
        for what, bits, known in asked:
            if bits not in known:
                raise ConfigError(
                    f"'{self.__struct_config__.tag}' trains {what} of {known[0]} to {known[-1]} "
                    f"bits, not {bits}; choose such a width, or another method"
                )

    def activation_parameters(self, start: ActivationStart) -> Sequence[Parameter]:
        """Return what there is to train about an activation."""
        raise NotImplementedError

    def activation(
        self, tape: Tape, x: ir.Value, p: Mapping[str, ir.Value], start: ActivationStart
    ) -> Faked:
        """Append the quantizer of an activation; ``p`` are its parameters, by name."""
        raise NotImplementedError

    def weight_parameters(self, start: WeightStart) -> Sequence[Parameter]:
        """Return what there is to train about how a weight is quantized, beside the weight."""
        return ()

    def weight(
        self, tape: Tape, w: ir.Value, p: Mapping[str, ir.Value], start: WeightStart
    ) -> Faked:
        """Append the quantizer of a weight; ``p`` are its parameters, by name."""
        return fixed_weight(tape, w, start)


def fixed_weight(tape: Tape, w: ir.Value, start: WeightStart) -> Faked:
    """Quantize a weight at scales that stay; the gradient is 1 where it is not clipped."""
    scale, qtype = tape.constant(start.scale), start.qtype
    codes = rounded(tape, clip(tape, tape.op("Div", w, scale), qtype.qmin, qtype.qmax))
    return Faked(tape.op("Mul", codes, scale), scale)


def fixed_activation(tape: Tape, x: ir.Value, start: ActivationStart) -> Faked:
    """Quantize an activation at a scale and zero point that stay, likewise."""
    scale = tape.constant(np.asarray(start.scale, np.float32))
    lo, hi = (float(q - start.zero_point) for q in (start.qtype.qmin, start.qtype.qmax))
    y = clip(tape, x, start.lo, start.hi)
    value = straight_through(tape, y, tape.op("Mul", steps(tape, x, scale, lo, hi), scale))
    zero = tape.constant(np.asarray(start.zero_point, np.float32)) if start.signed else None
    return Faked(value, scale, zero)


def steps(tape: Tape, x: ir.Value, scale: Operand, lo: Operand, hi: Operand) -> ir.Value:
    """Return how many steps each value is from 0.0, without a gradient by anything.

    Rounded before they are clipped, as the kernel does.
    """
    return clip(tape, tape.op("Round", tape.op("Div", x, scale)), lo, hi)


def clip(tape: Tape, x: Operand, lo: Operand, hi: Operand) -> ir.Value:
    """Return values clipped to bounds of shape ``()``, with the gradient 1 strictly inside."""
    bounds = (float(b) if isinstance(b, int) else b for b in (lo, hi))
    return tape.op("Clip", x, *bounds)


def faked_bias(
    tape: Tape, bias: ir.Value, input_scale: ir.Value, weight_scale: ir.Value
) -> ir.Value:
    """Round a bias at the step of the sums it is added to, as integer kernels do.

    The gradient goes to the bias alone.
    """
    step = without_gradient(tape, tape.op("Mul", input_scale, weight_scale))
    codes = tape.op("Round", tape.op("Div", bias, step))
    return straight_through(tape, bias, tape.op("Mul", codes, step))
