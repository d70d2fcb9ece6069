"""Masks as floats, with which kinks are differentiated.

A comparison, its cast and the product with a gradient take onnxruntime's CPU twice the time of a
product that saturates, ``clip(x · big, 0, 1)``; ``Sign`` takes four times that of
``clip(x · big, -1, 1)``, and ``Where`` three times that of a product. The mask is the same for all
numbers of at least ``1 / big``, 5e-20 in float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptq.train.gradients.base import Backward
from ptq.train.tape import Operand


def positive(at: Backward, x: Operand, below: float = 0.0) -> ir.Value:
    """Return 1 where ``x > 0``, and a number in 0..1 elsewhere; at 0, that number too."""
    return at.op("Clip", _saturated(at, x), below, 1.0)


def sign(at: Backward, x: Operand) -> ir.Value:
    """Return the sign of ``x``, 0 at 0."""
    return at.op("Clip", _saturated(at, x), -1.0, 1.0)


def between(at: Backward, y: ir.Value, lo: Operand, hi: Operand) -> ir.Value:
    """Return 1 where ``lo < y < hi``, 0 elsewhere.

    Args:
        at: what appends.
        y: at least ``lo``, at most ``hi``.
        lo: the lower bound; ``None`` without one.
        hi: the upper bound; ``None`` without one.
    """
    above = y if lo is None or _is_zero(lo) else at.op("Sub", y, lo)
    if hi is None:
        return positive(at, above)
    under = at.op("Sub", hi, y)
    return positive(at, under if lo is None else at.op("Mul", above, under))


def _saturated(at: Backward, x: Operand) -> ir.Value:
    # the root: neither do large numbers overflow, nor do small ones matter
    return at.op("Mul", x, float(np.sqrt(np.finfo(at.tape.dtype).max)))


def _is_zero(bound: Operand) -> bool:
    return isinstance(bound, float) and bound == 0.0
