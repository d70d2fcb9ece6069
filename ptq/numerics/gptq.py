"""GPTQ: round a weight so that the product with its inputs changes least.

A matrix here is a stack of groups, shape ``(groups, rows, columns)``: the columns are the inputs,
and each group has inputs of its own, as those of a grouped convolution have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.levels import nearest_level

#: Columns rounded before what they leave is taken from all later ones: one product for many.
_BLOCK = 128

#: With so much damping, inputs count as independent: it is rounding to nearest.
_MOST_DAMPING = 1e3

#: Up to this many columns, many small matrices are inverted at once.
_SMALL = 64


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What the codes of a weight can be.

    Attributes:
        scale: float64, shape ``(groups, rows, columns)``, or 1 in place of the columns.
        zero_point: likewise.
        qmin: the least code.
        qmax: the largest.
        partners: for each column the column of which the code and its own may not add up to more
            than ``limit`` in magnitude, -1 for none; shape ``(orders, columns)``.
        limit: see ``partners``; at least as large as each code.
        levels: the only codes that there may be, ascending, of shape ``(groups, rows, levels)``;
            ``None`` if all from ``qmin`` to ``qmax``. They are too small to have partners.
    """

    scale: F64
    zero_point: F64
    qmin: int
    qmax: int
    partners: AnyArray
    limit: int
    levels: F64 | None = None

    def nearest(self, steps: F64, codes: F64, column: AnyArray) -> F64:
        """Return the codes of one column of each group, for values in steps.

        Args:
            steps: shape ``(groups, rows)``, the zero point added.
            codes: all there are so far, with one column more (`code_bounds`).
            column: one for each group.
        """
        if self.levels is not None:
            return np.asarray(nearest_level(steps[:, :, None], self.levels)[:, :, 0])
        lo, hi = code_bounds(codes, self, column)
        return np.asarray(np.clip(np.rint(steps), lo, hi))

    def values(self, codes: AnyArray) -> F64:
        """Return what codes stand for."""
        return np.asarray((codes - self.zero_point) * self.scale)


def round_by_gptq(w: F64, gram: F64, grid: Grid, *, damping: float) -> F64:
    """Return codes, shape of ``w``.

    Column after column is rounded, that with the largest inputs first, and what rounding takes
    from one is made up for by those that are still to come. With inputs that are not correlated
    it is rounding to nearest. An input that was always 0 is rounded to nearest, too, whereas the
    reference sets its weight to 0.

    Reference: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
    Pre-trained Transformers", ICLR 2023, algorithm 1, with the order of its ``act-order``. Departs
    from it where codes are bound to one another: the later of two is rounded within what the
    earlier one leaves it, and what that costs is made up for likewise.

    Args:
        w: the weight.
        gram: sums of products of inputs, shape ``(groups, columns, columns)``.
        grid: what the codes can be.
        damping: what is added to the diagonal, as a share of its mean; above 0.
    """
    groups, rows, columns = w.shape
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    sorted_gram = np.take_along_axis(
        np.take_along_axis(gram, order[:, :, None], axis=1), order[:, None, :], axis=2
    )
    factor = _inverse_factor(sorted_gram, damping)
    rest = np.take_along_axis(w, order[:, None, :], axis=2)
    scale, zero_point = (
        np.take_along_axis(np.broadcast_to(p, w.shape), order[:, None, :], axis=2)
        for p in (grid.scale, grid.zero_point)
    )
    # an unrounded code is 0, which binds none; the last column is the partner of who has none
    codes = np.zeros((groups, rows, columns + 1))
    every = np.arange(groups)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        lost = np.empty((groups, rows, end - start))
        for i in range(start, end):
            column = order[:, i]
            step, zero = scale[:, :, i], zero_point[:, :, i]
            code = grid.nearest(rest[:, :, i] / step + zero, codes, column)
            codes[every, :, column] = code
            error = (rest[:, :, i] - (code - zero) * step) / factor[:, i, i][:, None]
            rest[:, :, i + 1 : end] -= error[:, :, None] * factor[:, i, None, i + 1 : end]
            lost[:, :, i - start] = error
        rest[:, :, end:] -= lost @ factor[:, start:end, end:]
    return codes[:, :, :columns]


def output_errors(w: F64, codes: AnyArray, grid: Grid, gram: F64) -> F64:
    """Return ``|(W - Q(W)) X|^2`` of each row, shape ``(groups, rows)``."""
    lost = grid.values(codes) - w
    return np.asarray(np.einsum("gok,gok->go", lost @ gram, lost))


def code_bounds(codes: F64, grid: Grid, column: AnyArray) -> tuple[F64, F64]:
    """Return the least and the largest code of one column of each group, for each row.

    Args:
        codes: with one column more, which is the partner of who has none.
        grid: what the codes can be.
        column: one for each group.
    """
    lo = np.full(codes.shape[:2], float(grid.qmin))
    hi = np.full(codes.shape[:2], float(grid.qmax))
    for partners in grid.partners:
        other = codes[np.arange(len(codes)), :, partners[column]]
        lo = np.maximum(lo, -grid.limit - other)
        hi = np.minimum(hi, grid.limit - other)
    return lo, hi


def with_damping(gram: F64, damping: float) -> F64:
    """Return sums with a share of the mean of their diagonal added to it; 1 where that is 0."""
    mean = np.diagonal(gram, axis1=1, axis2=2).mean(axis=1)
    added = np.where(mean > 0, damping * mean, 1.0)
    return np.asarray(gram + added[:, None, None] * np.eye(gram.shape[1]))


def _inverse_factor(gram: F64, damping: float) -> F64:
    """Return the upper triangular U with ``U^T U`` the inverse of the damped matrices.

    It comes from the factor of the matrix itself, of which rows and columns are reversed: the
    inverse need not be computed, which would cost precision.
    """
    from scipy.linalg import solve_triangular

    upper = _cholesky(gram[:, ::-1, ::-1], damping)[:, ::-1, ::-1]
    if gram.shape[1] <= _SMALL:
        return np.asarray(np.triu(np.linalg.inv(upper)))
    eye = np.eye(gram.shape[1])
    return np.stack([solve_triangular(u, eye, lower=False) for u in upper])


def _cholesky(gram: F64, damping: float) -> F64:
    """Return the lower triangular factors of matrices with as much damping as that takes.

    Moments about the mean, of which sums in float32 were taken away from one another, may have
    eigenvalues below 0 where the mean is a hundred times what inputs differ by.
    """
    try:
        return np.asarray(np.linalg.cholesky(with_damping(gram, damping)))
    except np.linalg.LinAlgError:
        if damping > _MOST_DAMPING:
            raise
        return _cholesky(gram, 10 * damping)
