"""The straight-through estimator: a value in the forward pass, the gradient of another one.

``StraightThrough(x, q)`` is ``q``, and its gradient goes to ``x`` as it is. What training needs of
quantizers is said with it: rounding is ``StraightThrough(x, Round(x))``, the gradient of PACT is
that of its clipping, ``StraightThrough(clip(x, 0, α), quantized)``, and a gradient is scaled by
``g`` by ``StraightThrough(g · x, x)``.

Reference: Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation", arXiv:1308.3432, 2013.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from ptq.train.tape import Operand, Tape

#: The domain of the operators that only training knows.
DOMAIN = "ptq"

OP_TYPE = "StraightThrough"


def straight_through(tape: Tape, x: Operand, q: Operand) -> ir.Value:
    """Return ``q``, whose gradient is that of ``x``; both of one shape."""
    return tape.op(OP_TYPE, x, q, domain=DOMAIN)


def rounded(tape: Tape, x: Operand) -> ir.Value:
    """Return values rounded half to even, as if rounding did nothing to the gradient."""
    return straight_through(tape, x, tape.op("Round", x))


def without_gradient(tape: Tape, x: Operand) -> ir.Value:
    """Return a value through which no gradient goes."""
    return tape.op("StopGradient", x, domain=DOMAIN)
