"""ProxQuant: weights drawn to the codes next to them, first weakly, at last all the way."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ptq.numerics.admm import Best, Eigenbasis
from ptq.numerics.arrays import F64
from ptq.numerics.projection import nearest_codes
from ptq.numerics.solutions import Solution

#: How weights are drawn: in proportion to their distance, or all by as much.
Norm = Literal["l2", "l1"]

#: Of the way to where the slope ends, in directions that matter; below 2, or it grows.
_STEP = 1.9


def drawn_by_share(w: F64, nearest: F64, strength: float) -> F64:
    """Return ``(w + strength Q(w)) / (1 + strength)``, the proximal map of the squared distance.

    It is ``a w + (1 - a) Q(w)`` with ``a = 1 / (1 + strength)``.
    """
    return np.asarray((w + strength * nearest) / (1.0 + strength))


def drawn_by_length(w: F64, nearest: F64, length: F64 | float) -> F64:
    """Return ``Q(w) + sign(w - Q(w)) max(|w - Q(w)| - length, 0)``, that of the plain distance."""
    off = w - nearest
    return np.asarray(nearest + np.sign(off) * np.maximum(np.abs(off) - length, 0.0))


def round_by_prox(
    w: F64, basis: Eigenbasis, start: Solution, steps: int, force: float, norm: Norm
) -> Solution:
    """Return the best codes on the path from the weights to codes, of each row for itself.

    Each step goes down the slope of ``1/2 (x - w) H (x - w)^T``, by ``1.9 (H + rho I)^-1``, so
    that directions that matter little are left where they are, and those that matter much go back
    to the weights and beyond; then ``x = a x + (1 - a) Q(x)``, with ``a`` from 1 to 0. The L1 norm
    instead takes as much from each distance, up to half a step. A step of at most 1 would never
    leave the nearest codes: it ends between the weights and these.

    Reference: Bai et al., "ProxQuant: Quantized Neural Networks via Proximal Operators",
    ICLR 2019, algorithm 1. Departs from it in that the loss is the error of
    the output of one layer, and the step is preconditioned, where the paper trains.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        basis: of the damped sums of products of inputs.
        start: the nearest codes; the result is no worse.
        steps: how many there are.
        force: ``rho``, as a share of the mean of the diagonal.
        norm: of the distance to the codes.
    """
    grid = start.grid
    origin = basis.into(w)
    best = Best(start, basis.errors(basis.into(grid.values(start.codes)) - origin))
    rho = force * basis.values.mean(axis=2, keepdims=True)
    kept = 1.0 - _STEP * basis.values / (basis.values + rho)
    drawn = origin
    for step in range(1, steps + 1):
        x = basis.back(origin + (drawn - origin) * kept).astype(np.float64)
        codes = nearest_codes(x, grid)
        values = grid.values(codes)
        best.take(Solution(codes, grid), basis.errors(basis.into(values) - origin))
        share = step / steps
        if norm == "l1":
            x = drawn_by_length(x, values, 0.5 * share * grid.scale)
        elif share < 1.0:
            x = drawn_by_share(x, values, share / (1.0 - share))
        else:
            x = values
        drawn = basis.into(x)
    return best.solution()
