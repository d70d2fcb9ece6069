"""Gradients of resizing, which is a product with a matrix along every axis that is resized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ptq.graph.save import to_bytes
from ptq.runtime.session import open_session, run
from ptq.train.gradients.base import Backward, NoGradientError, gradient
from ptq.train.gradients.separable import by_matrices
from ptq.train.tape import Operand, Tape

Grads = Sequence["ir.Value | None"]


@gradient("Resize", severed=[1, 2, 3])
def resize(at: Backward) -> Grads:
    """Any mode in which the axes do not depend on one another."""
    if at.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise NoGradientError("it crops")
    if at.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoGradientError("it keeps the ratio of sides")
    shape, result = at.shape(at.x(0)), at.shape(at.y)
    axes = [int(a) % len(shape) for a in at.integers("axes", range(len(shape)))]
    scales, sizes = (at.array(i) for i in (2, 3))
    by_scale = scales is not None and scales.size > 0
    if not by_scale and sizes is None:
        raise NoGradientError("it has neither sizes nor scales")
    matrices = {}
    for i, axis in enumerate(axes):
        scale = float(scales[i]) if by_scale and scales is not None else None
        if shape[axis] != result[axis] or scale not in (None, 1.0):
            matrices[axis] = _matrix(at.node, shape[axis], result[axis], scale)
    return (_by_repeated(at, matrices) or by_matrices(at.tape, at.grad, matrices, len(shape)),)


def _by_repeated(at: Backward, matrices: dict[int, np.ndarray]) -> ir.Value | None:
    """Return the gradient where every element is repeated along spatial axes, if so."""
    spatial = range(2, len(at.shape(at.x(0))))
    times = {a: m.shape[0] // m.shape[1] for a, m in matrices.items()}
    for axis, matrix in matrices.items():
        repeated = np.repeat(np.eye(matrix.shape[1]), times[axis], axis=0)
        if axis not in spatial or not np.array_equal(matrix, repeated):
            return None
    if not matrices or len(spatial) > 3:
        return None
    kernel = [times.get(axis, 1) for axis in spatial]
    mean = at.op("AveragePool", at.grad, kernel_shape=kernel, strides=kernel)
    return at.op("Mul", mean, float(np.prod(kernel)))


def _matrix(node: ir.Node, size: int, out: int, scale: float | None) -> np.ndarray:
    """Return what onnxruntime makes of the unit vectors, (out, size).

    Args:
        node: the operator.
        size: of an axis.
        out: what it becomes.
        scale: that the operator is told, if it is.
    """
    kept = {n: a.value for n, a in node.attributes.items() if n not in ("axes", "antialias_axes")}
    vectors = ir.Value(
        name="vectors", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((size, 1, size, 1))
    )
    graph = ir.Graph([vectors], [], nodes=[], opset_imports={"": 21}, name="resize")
    tape = Tape(graph, "resize/")
    if scale is None:
        operands: list[Operand] = [None, None, [size, 1, out, 1]]
    else:
        operands = [None, np.asarray([1, 1, scale, 1], np.float32)]
    resized = tape.op("Resize", vectors, *operands, **kept)
    resized.dtype = ir.DataType.FLOAT
    graph.outputs.append(resized)
    session = open_session(to_bytes(ir.Model(graph, ir_version=10)))
    unit = np.eye(size, dtype=np.float32).reshape(size, 1, size, 1)
    (found,) = run(session, {"vectors": unit}, where="unit vectors to resize")
    assert found.shape == (size, 1, out, 1), "an axis is resized as it is in the whole"
    return found.reshape(size, out).T.astype(np.float64)
