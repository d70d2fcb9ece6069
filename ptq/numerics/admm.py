"""ADMM: a weight that is free and codes that are not, drawn together by a growing force."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptq.numerics.arrays import F32, F64
from ptq.numerics.diagonal import scaled
from ptq.numerics.gptq import Grid
from ptq.numerics.projection import nearest_codes
from ptq.numerics.solutions import Solution


@dataclass(frozen=True, slots=True, eq=False)
class Eigenbasis:
    """Sums of products of inputs in the basis in which they are a diagonal, in float32.

    Codes are told apart by halves of a step, for which float32 does, in half the time.

    Attributes:
        values: of the damped sums, above 0, shape ``(groups, 1, columns)``.
        vectors: as columns, shape ``(groups, columns, columns)``.
    """

    values: F32
    vectors: F32

    @classmethod
    def of(cls, damped: F64) -> Eigenbasis:
        """Return that of damped sums; what rounding made negative counts as next to nothing."""
        values, vectors = np.linalg.eigh(damped)
        largest = values[:, -1:]
        # the same factor for all leaves everything as it is, and sums of any size fit
        shares = np.maximum(values / np.where(largest > 0, largest, 1.0), 1e-12)
        return cls(shares[:, None, :].astype(np.float32), vectors.astype(np.float32))

    def into(self, w: F32 | F64) -> F32:
        """Return matrices in this basis."""
        return np.asarray(w.astype(np.float32, copy=False) @ self.vectors)

    def back(self, w: F32) -> F32:
        """Return matrices that are in this basis in the usual one."""
        return np.asarray(w @ self.vectors.transpose(0, 2, 1))

    def errors(self, lost: F32) -> F64:
        """Return the squared error of the output of each row, of losses in this basis.

        They are shares of the largest eigenvalue of the group.
        """
        return np.asarray(np.einsum("gok,gok->go", lost, lost * self.values, dtype=np.float64))


class Best:
    """The codes of least error so far, of each row for itself.

    Args:
        start: codes to begin with.
        errors: theirs, shape ``(groups, rows)``.
    """

    def __init__(self, start: Solution, errors: F64) -> None:
        self.errors = errors.copy()
        self.codes = start.codes.copy()
        self.grid = replace(
            start.grid, scale=np.broadcast_to(start.grid.scale, start.codes.shape).copy()
        )

    def take(self, found: Solution, errors: F64) -> None:
        """Take the rows of which the error is less."""
        better = errors < self.errors
        self.errors[better] = errors[better]
        self.codes[better] = found.codes[better]
        scale = np.broadcast_to(found.grid.scale, self.codes.shape)
        self.grid.scale[better] = scale[better]

    def solution(self) -> Solution:
        """Return the best codes, and scales in the shape of them."""
        return Solution(self.codes, self.grid)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the force grows.

    Attributes:
        iterations: how many.
        force: the first one, as a share of the mean of the diagonal.
        growth: by what factor it grows with each iteration, above 1.
    """

    iterations: int = 60
    force: float = 0.1
    growth: float = 1.06


def round_by_admm(
    w: F64, basis: Eigenbasis, start: Solution, block: int | None, schedule: Schedule
) -> Solution:
    """Return the best codes that ADMM comes by, of each row for itself.

    With ``f = 1/2 (W - W0) H (W - W0)^T``, each iteration takes ``W = (W0 H + rho (G - L))
    (H + rho I)^-1``, ``G`` the codes next to ``W + L``, and ``L += W - G``. ``L`` is divided by
    the growth of ``rho``. With free scales, those of ``G`` are ``<v, q> / <q, q>``.

    ``W - G`` need not fall: the best ``G`` of each row is taken, by ``H``, and but for rounding
    never a worse one than ``start``. Costs two products of the weight with a square matrix an
    iteration.

    Reference: Leng et al., "Extremely Low Bit Neural Network: Squeeze the Last Bit Out with ADMM",
    AAAI 2018. Departs from it in that ``f`` is the error of the output of one
    layer, which has a closed form, and not the loss of the network; and by the growing ``rho``.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        basis: of the damped sums of products of inputs.
        start: the nearest codes.
        block: how many columns of a row share a scale; ``None`` if scales are to stay.
        schedule: how ``rho`` grows.
    """
    grid, codes = start.grid, start.codes
    origin = basis.into(w)
    drawn = basis.into(grid.values(codes))
    dual = np.zeros_like(origin)
    best = Best(start, basis.errors(drawn - origin))
    rho = schedule.force * basis.values.mean(axis=2, keepdims=True)
    for _ in range(schedule.iterations):
        free = (origin * basis.values + rho * (drawn - dual)) / (basis.values + rho)
        aim = basis.back(free + dual).astype(np.float64)
        codes = nearest_codes(aim, grid)
        if block is not None:
            grid = _rescaled(grid, aim, codes, block)
        drawn = basis.into(grid.values(codes))
        best.take(Solution(codes, grid), basis.errors(drawn - origin))
        dual = (dual + free - drawn) / schedule.growth
        rho = rho * schedule.growth
    return best.solution()


def _rescaled(grid: Grid, values: F64, codes: F64, block: int) -> Grid:
    return scaled(grid, values, codes, np.ones((1, 1, 1)), block)
