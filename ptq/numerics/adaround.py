"""AdaRound: learn for each weight whether it is rounded up or down.

A weight is ``s · (clip(floor(w/s) + h(V) + z, qmin, qmax) - z)``, where ``h`` goes from 0 to 1:
``clip(σ(V) (ζ - γ) + γ, 0, 1)``. ``V`` is learned by gradient descent, and a term that grows in
weight drives ``h`` to 0 or 1.

Reference: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
equations 21 to 25.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptq.numerics.affine import QTensor, per_element
from ptq.numerics.arrays import F32, AnyArray

#: How far the sigmoid is stretched, so that 0 and 1 are reached.
_ZETA, _GAMMA = 1.1, -0.1

#: Decay of the means of the gradient and of its square, and what keeps from dividing by 0 (Kingma
#: and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015).
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

#: What is taken for 0 where its logarithm is needed.
_TINY = 1e-30

#: So many numbers are updated at once that what is in between stays in the cache.
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Annealing:
    """How a descent goes on, from free weights to codes.

    Attributes:
        rate: the learning rate at first; it ends at a tenth.
        pressure: the weight of the term that draws weights to their codes, at first and in the
            end: so many times the error with weights rounded to nearest, if all are half way.
            With 1 all the way, a sixth of the weights of correlated inputs are half way after 500
            steps; with 10 in the end, one of twenty.
        beta: the exponent of that term, likewise.
        free: the share of the steps before it begins.
    """

    rate: float = 0.1
    pressure: tuple[float, float] = (1.0, 10.0)
    beta: tuple[float, float] = (20.0, 2.0)
    free: float = 0.2

    def at(self, progress: float) -> tuple[float, float, float]:
        """Return rate, pressure and exponent when so much of the descent is done, in 0..1."""
        rate = self.rate * (0.55 + 0.45 * math.cos(math.pi * progress))
        drawn = (progress - self.free) / (1.0 - self.free)
        if drawn < 0.0:
            return rate, 0.0, self.beta[0]
        first, last = self.pressure
        share = 0.5 * (1.0 + math.cos(math.pi * drawn))
        beta = self.beta[1] + (self.beta[0] - self.beta[1]) * share
        return rate, first * (last / first) ** drawn, beta


class SoftWeight:
    """A weight between its codes.

    Args:
        array: the weight, float32.
        tensor: how it is written: scales and zero points stay.
    """

    def __init__(self, array: AnyArray, tensor: QTensor) -> None:
        self.tensor = tensor
        qtype = tensor.qparams.qtype
        scale, zero_point = per_element(tensor.qparams, tensor.codes.shape)
        shape = array.shape
        self.scale = np.broadcast_to(scale, tensor.codes.shape).reshape(shape).astype(np.float32)
        zeros = np.broadcast_to(zero_point, tensor.codes.shape).reshape(shape).astype(np.float32)
        steps = array / self.scale
        below = np.floor(steps)
        rest = np.clip(steps - below, 0.0, 1.0)
        # the inverse of h; 0 and 1 are within what the stretched sigmoid reaches
        self.v: F32 = -np.log((_ZETA - _GAMMA) / (rest - _GAMMA) - 1.0).astype(np.float32)
        self.zero_point = zeros
        self.below = below
        self.lo: F32 = qtype.qmin - zeros - below
        self.hi: F32 = qtype.qmax - zeros - below
        self._mean = np.zeros_like(self.v)
        self._square = np.zeros_like(self.v)
        self._steps = 0

    def h(self) -> F32:
        """Return how far each weight is on its way up, 0 to 1."""
        h: F32 = _sigmoid(self.v) * np.float32(_ZETA - _GAMMA) + np.float32(_GAMMA)
        return np.clip(h, 0.0, 1.0, out=h)

    def values(self) -> F32:
        """Return the weight as it is now, between its codes."""
        return (self.below + np.clip(self.h(), self.lo, self.hi)) * self.scale

    def rounded(self) -> QTensor:
        """Return the weight in codes: up where that is nearer than down."""
        up = self.v >= 0.0
        codes = self.below + np.clip(up, self.lo, self.hi) + self.zero_point
        old = self.tensor
        new = codes.astype(old.codes.dtype).reshape(old.codes.shape)
        return QTensor(np.ascontiguousarray(new), old.qparams)

    def decided(self) -> bool:
        """Whether all weights are up or down: no gradient moves them any more."""
        h = self.h()
        return not np.any((h > 0.0) & (h < 1.0))

    def step(self, gradient: AnyArray, *, rate: float, pressure: float, beta: float) -> None:
        """Take one step of Adam.

        Args:
            gradient: of the loss, by the weight as `values` returns it.
            rate: the learning rate.
            pressure: the weight of ``1 - |2h - 1|^beta``, which is added to the loss; 0 for none.
            beta: the larger, the more only those near up or down are drawn there.
        """
        self._steps += 1
        first, second = 1.0 - _BETA1**self._steps, 1.0 - _BETA2**self._steps
        given = (self.v, gradient, self.scale, self.lo, self.hi, self._mean, self._square)
        flat = [x.reshape(-1) for x in given]
        for start in range(0, self.v.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            v, by_weight, scale, lo, hi, mean, square = (x[part] for x in flat)
            g = _by_v(v, by_weight, (scale, lo, hi), pressure, beta)
            mean += (1.0 - _BETA1) * (g - mean)
            g *= g
            square += (1.0 - _BETA2) * (g - square)
            root = np.sqrt(square)
            root *= 1.0 / math.sqrt(second)
            root += _EPSILON
            v -= (rate / first) * mean / root


def _by_v(v: F32, by_weight: F32, grid: tuple[F32, F32, F32], pressure: float, beta: float) -> F32:
    """Return the gradient of the loss, and of what draws weights to their codes, by V."""
    scale, lo, hi = grid
    sigmoid = _sigmoid(v)
    h = sigmoid * np.float32(_ZETA - _GAMMA)
    h += np.float32(_GAMMA)
    g: F32 = by_weight * scale
    g *= (h >= lo) & (h <= hi)  # a code at the end of its grid stays there
    if pressure:
        side = 2.0 * h - 1.0
        # |2h - 1|^(beta - 1), which is 0 half way
        size = np.maximum(np.abs(side), np.float32(_TINY))
        np.log(size, out=size)
        size *= beta - 1.0
        np.exp(size, out=size)
        size *= pressure * 2.0 * beta
        g -= np.copysign(size, side)
    g *= (h > 0.0) & (h < 1.0)
    slope = 1.0 - sigmoid
    slope *= sigmoid
    slope *= np.float32(_ZETA - _GAMMA)
    g *= slope
    return g


def _sigmoid(x: F32) -> F32:
    negated: F32 = np.exp(-x)
    negated += 1.0
    return np.divide(np.float32(1.0), negated, out=negated)
