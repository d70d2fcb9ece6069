"""Gradients of products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from ptq.train.gradients.base import Backward, gradient

Grads = Sequence["ir.Value | None"]


@gradient("Gemm")
def gemm(at: Backward) -> Grads:
    """``Y = α A' B' + β C``, where ``A'`` is ``A`` or its transpose."""
    a, b, bias = at.x(0), at.x(1), at.given(2)
    left, right, alpha = at.integer("transA", 0), at.integer("transB", 0), at.number("alpha", 1.0)

    def product(x: ir.Value, y: ir.Value, x_turned: int, y_turned: int) -> ir.Value:
        return at.op("Gemm", x, y, transA=x_turned, transB=y_turned, alpha=alpha)

    by_a = product(b, at.grad, right, 1) if left else product(at.grad, b, 0, 1 - right)
    by_b = product(at.grad, a, 1, left) if right else product(a, at.grad, 1 - left, 0)
    if bias is None:
        return by_a, by_b
    beta = at.number("beta", 1.0)
    grad = at.grad if beta == 1.0 else at.op("Mul", at.grad, beta)
    return by_a, by_b, at.reduced(grad, at.shape(at.y), bias)


@gradient("MatMul")
def matmul(at: Backward) -> Grads:
    """``Y = A B``, batched and broadcast as numpy does it; vectors are rows and columns."""
    shapes = [at.shape(at.x(0)), at.shape(at.x(1))]
    rows, columns = _as_matrix(shapes[0], 0), _as_matrix(shapes[1], 1)
    if len(columns) == 2:
        return _by_one_matrix(at, rows, columns)
    batch = at.shape(at.y)[: len(at.shape(at.y)) - (len(shapes[0]) > 1) - (len(shapes[1]) > 1)]
    a, b = _reshaped(at, at.x(0), rows), _reshaped(at, at.x(1), columns)
    grad = _reshaped(at, at.grad, (*batch, rows[-2], columns[-1]), at.shape(at.y))
    by_a = at.op("MatMul", grad, _turned(at, b, len(columns)))
    by_b = at.op("MatMul", _turned(at, a, len(rows)), grad)
    by_a = _summed(at, by_a, (*batch, *rows[-2:]), rows)
    by_b = _summed(at, by_b, (*batch, *columns[-2:]), columns)
    return _reshaped(at, by_a, shapes[0], rows), _reshaped(at, by_b, shapes[1], columns)


def _by_one_matrix(at: Backward, rows: tuple[int, ...], columns: tuple[int, ...]) -> Grads:
    """Return the gradients where the right operand is one matrix: all rows are one batch."""
    flat = prod(rows[:-1]), rows[-1]
    a = _reshaped(at, at.x(0), flat)
    b = _reshaped(at, at.x(1), columns)
    grad = _reshaped(at, at.grad, (flat[0], columns[1]), at.shape(at.y))
    by_a = at.op("Gemm", grad, b, transB=1)
    by_b = at.op("Gemm", a, grad, transA=1)
    return (
        _reshaped(at, by_a, at.shape(at.x(0)), flat),
        _reshaped(at, by_b, at.shape(at.x(1)), columns),
    )


def _as_matrix(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Return the shape of an operand, a vector being a row (0) or a column (1)."""
    if len(shape) > 1:
        return shape
    return (1, *shape) if axis == 0 else (*shape, 1)


def _reshaped(
    at: Backward, value: ir.Value, shape: Sequence[int], known: Sequence[int] | None = None
) -> ir.Value:
    """Return a value in another shape; itself if it has it, which for new values must be said."""
    if tuple(at.shape(value) if known is None else known) == tuple(shape):
        return value
    return at.op("Reshape", value, list(shape))


def _turned(at: Backward, value: ir.Value, rank: int) -> ir.Value:
    return at.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


def _summed(
    at: Backward, grad: ir.Value, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> ir.Value:
    """Return the gradient of an operand of which every matrix was used several times."""
    lead = len(shape) - len(wanted)
    axes = [i for i, n in enumerate(shape) if i < lead or (wanted[i - lead] == 1 and n != 1)]
    axes = [i for i in axes if i < len(shape) - 2]
    if not axes:
        return grad
    grad = at.op("ReduceSum", grad, axes, keepdims=1)
    return at.op("Reshape", grad, list(wanted)) if lead else grad
