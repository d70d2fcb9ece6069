"""The gradient of what is a product with a matrix along every spatial axis: resizing, averaging."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ptq.train.tape import Tape


def by_matrices(
    tape: Tape, grad: ir.Value, matrices: Mapping[int, np.ndarray], rank: int
) -> ir.Value:
    """Return the gradient of ``x`` where the result is ``x`` times a matrix along some axes.

    Args:
        tape: grows.
        grad: the gradient of the result.
        matrices: of shape (result, x), by axis.
        rank: of both.
    """
    for axis, matrix in matrices.items():
        array = matrix.astype(tape.dtype)
        if axis == rank - 1:
            grad = tape.op("MatMul", grad, array)
        elif axis == rank - 2:
            grad = tape.op("MatMul", np.ascontiguousarray(array.T), grad)
        else:
            perm = list(range(rank))
            perm[axis], perm[-1] = perm[-1], perm[axis]
            product = tape.op("MatMul", tape.op("Transpose", grad, perm=perm), array)
            grad = tape.op("Transpose", product, perm=perm)
    return grad
