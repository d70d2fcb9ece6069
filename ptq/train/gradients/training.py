"""Gradients of the operators that only training knows."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient
from ptq.train.straight_through import DOMAIN


@gradient("StraightThrough", domain=DOMAIN, severed=[1])
def straight_through(at: Backward) -> Sequence[ir.Value | None]:
    """``q`` in the forward pass; the gradient is that of ``x``."""
    return at.grad, None


@gradient("StopGradient", domain=DOMAIN, severed=[0])
def stop_gradient(at: Backward) -> Sequence[ir.Value | None]:
    """Nothing goes back."""
    return (None,)
