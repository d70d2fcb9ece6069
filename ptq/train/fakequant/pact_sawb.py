"""PACT for activations, SAWB for weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ptq.train.fakequant.base import Faked, WeightStart
from ptq.train.fakequant.channels import LEAST
from ptq.train.fakequant.pact import Pact
from ptq.train.straight_through import straight_through, without_gradient
from ptq.weights.sawb import COEFFICIENTS, bound_of_least_error

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Tape


class PactSawb(Pact, frozen=True, kw_only=True, tag="pact-sawb"):
    """Activations as PACT; weights clipped where their statistics say.

    ``w = α (2 round((2^b - 1) (clip(w / α, -1, 1) / 2 + 1/2)) / (2^b - 1) - 1)``: 2^b levels
    without 0. ``α = c1 √E[w²] + c2 E|w|``, the coefficients fitting the bound of least squared
    error of six distributions. It is computed from the weights at each step, for a layer: of a
    channel, which has few weights, the difference of both terms is unstable. It is at most
    ``max |w|``;
    where it is below ``E|w|``, as of weights of about equal magnitude, which the fit does not
    cover, it is the bound of least squared error of the weights that training started from.

    The gradient goes through to all weights, as in the authors' program, clipped ones included. α
    is a constant to it: it is there for the least squared error, which does not change with it.

    The levels are odd multiples of ``α / (2^b - 1)``, so integer weights of b bits take b + 1.

    Reference: Choi, Venkataramani, Srinivasan, Gopalakrishnan, Wang, Chuang, "Accurate and
    Efficient 2-bit Quantized Neural Networks", MLSys 2019, section 3; activations as in `Pact`.
    """

    paper: ClassVar[str] = (
        "Choi et al., Accurate and Efficient 2-bit Quantized Neural Networks, MLSys 2019"
    )
    weight_bits: ClassVar[range] = range(min(COEFFICIENTS), max(COEFFICIENTS) + 1)

    def weight(
        self, tape: Tape, w: ir.Value, p: Mapping[str, ir.Value], start: WeightStart
    ) -> Faked:
        """Clip where the statistics say, and round to an odd number of steps."""
        top = float(2**start.qtype.bits - 1)
        alpha = without_gradient(tape, _bound(tape, w, start))
        codes = odd_codes(tape, w, alpha, top)
        scale = tape.op("Div", alpha, top)
        return Faked(straight_through(tape, w, tape.op("Mul", codes, scale)), scale)


def odd_codes(tape: Tape, w: ir.Value, alpha: ir.Value, top: float) -> ir.Value:
    """Return the odd number of steps ``alpha / top``, at most ``top``, next to each weight."""
    part = tape.op("Clip", tape.op("Div", w, alpha), -1.0, 1.0)
    half = tape.op("Add", tape.op("Mul", part, 0.5), 0.5)
    level = tape.op("Round", tape.op("Mul", half, top))
    return tape.op("Sub", tape.op("Mul", level, 2.0), top)


def _bound(tape: Tape, w: ir.Value, start: WeightStart) -> ir.Value:
    size = tape.op("Abs", w)
    mean = tape.op("ReduceMean", size, keepdims=0)
    root = tape.op("Sqrt", tape.op("ReduceMean", tape.op("Mul", w, w), keepdims=0))
    c1, c2 = COEFFICIENTS[start.qtype.bits]
    fitted = tape.op("Add", tape.op("Mul", root, c1), tape.op("Mul", mean, c2))
    fitted = tape.op("Min", fitted, tape.op("ReduceMax", size, keepdims=0))
    least = np.float32(LEAST * float(np.max(start.scale)))
    weights, steps = start.array.astype(np.float64).reshape(-1), 2**start.qtype.bits - 1
    searched = max(np.float32(bound_of_least_error(weights, steps)), least)
    found = tape.op("Where", tape.op("Less", fitted, mean), np.asarray(searched), fitted)
    return tape.op("Max", found, np.asarray(least))
