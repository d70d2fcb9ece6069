"""Round a share of the weights, let the others make up for it, round a share of these, ..."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.gptq import Grid, with_damping
from ptq.numerics.projection import nearest_codes

#: Which weights are rounded first.
Order = Literal["loss", "magnitude"]

#: Steps of conjugate gradients, of which each is one product with the square matrix.
_STEPS = 24


def round_by_increments(
    w: F64, gram: F64, grid: Grid, *, damping: float, stages: int, order: Order
) -> F64:
    """Return codes, shape of ``w``.

    The first stage rounds half of the weights of each row, each later one half of the rest, the
    last one what is left. After each, the weights that are not rounded yet take the values with
    which the error of the output is least, by conjugate gradients.

    Reference: Zhou et al., "Explicit Loss-Error-Aware Quantization for Low-Bit Deep Neural
    Networks", CVPR 2018, for the aim, and Zhou et al., "Incremental Network Quantization",
    ICLR 2017, for the shares. It is an analogue of both: they retrain what is not rounded yet with
    labels, ELQ with the growth of the loss in the objective; here the loss is the squared error of
    one layer's output, and retraining has a closed form.

    Args:
        w: the weight, shape ``(groups, rows, columns)``.
        gram: sums of products of inputs, shape ``(groups, columns, columns)``.
        grid: what the codes can be.
        damping: what is added to the diagonal, as a share of its mean; above 0.
        stages: how many shares there are.
        order: first those of which rounding costs least, or the largest ones.
    """
    columns = w.shape[2]
    damped = with_damping(gram, damping)
    cost = np.diagonal(np.linalg.inv(damped), axis1=1, axis2=2)[:, None, :]
    current, left = w.copy(), np.ones(w.shape, bool)
    codes = nearest_codes(current, grid)
    for stage in range(1, stages):
        values = grid.values(codes)
        loss = (current - values) ** 2 / cost if order == "loss" else -np.abs(w)
        rank = np.argsort(np.where(left, loss, -np.inf), axis=2, kind="stable")
        fixed = columns - round(columns * 0.5**stage)
        np.put_along_axis(left, rank[:, :, :fixed], values=False, axis=2)
        current = w - _made_up(np.where(left, w - current, w - values), left, damped)
        codes = nearest_codes(current, grid)
    return codes


def _made_up(lost: F64, free: AnyArray, gram: F64) -> F64:
    """Return losses of which those that are free make ``lost gram lost^T`` least, by row.

    Args:
        lost: what each weight loses; of the free ones, where to start.
        free: which may change.
        gram: damped sums of products of inputs.
    """
    diagonal = np.diagonal(gram, axis1=1, axis2=2)[:, None, :]
    found = lost.copy()
    residual = np.where(free, -(found @ gram), 0.0)
    aim = residual / diagonal
    size = (residual * aim).sum(axis=2, keepdims=True)
    direction = aim
    for _ in range(_STEPS):
        along = np.where(free, direction @ gram, 0.0)
        curve = (direction * along).sum(axis=2, keepdims=True)
        step = np.where(curve > 0, size / np.where(curve > 0, curve, 1.0), 0.0)
        found += step * direction
        residual = residual - step * along
        aim = residual / diagonal
        new = (residual * aim).sum(axis=2, keepdims=True)
        direction = aim + np.where(size > 0, new / np.where(size > 0, size, 1.0), 0.0) * direction
        size = new
    return found
