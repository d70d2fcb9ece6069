"""The weights of linear operators, by the channels that they read and those that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptq.graph.passes.edit import (
    Array,
    Initializers,
    constant,
    input_at,
    int_attribute,
    is_op,
    only_user,
)

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear operator with constant weight and bias, each of which nobody else reads.

    Attributes:
        node: a Conv, ConvTranspose, Gemm or MatMul that takes its data at input 0.
        axis: the channel axis of its data and of its output: 1, or -1 of matrices.
        rank: of its data, where the weight tells it; otherwise 0.
        shape: ``(group, outputs / group, inputs / group, kernel elements)``.
    """

    node: ir.Node
    axis: int
    rank: int
    shape: tuple[int, int, int, int]

    @property
    def inputs(self) -> int:
        """How many channels it reads."""
        return self.shape[0] * self.shape[2]

    @property
    def outputs(self) -> int:
        """How many channels it makes."""
        return self.shape[0] * self.shape[1]

    @property
    def depthwise(self) -> bool:
        """Whether every channel that it makes comes of one that it reads."""
        return self.shape[2] == 1

    def magnitudes(self) -> Float64:
        """Return the largest magnitude of each kernel, ``(group, out / group, in / group)``."""
        weight = constant(self.node.inputs[1])
        assert weight is not None
        largest: Float64 = np.abs(self._grouped(weight)).max(axis=3)
        return largest

    def matrix(self) -> Array:
        """Return the weight of a dense layer as ``(inputs, outputs)``."""
        weight = constant(self.node.inputs[1])
        assert weight is not None
        return self._grouped(weight)[0, :, :, 0].T.astype(weight.dtype)

    def scale(self, constants: Initializers, made: Float64 | None, read: Float64 | None) -> None:
        """Multiply the weight, and by the first factors the bias, in place.

        Args:
            constants: of the model.
            made: a factor for each channel that it makes.
            read: a factor for each channel that it reads.
        """
        weight = constant(self.node.inputs[1])
        assert weight is not None
        group = self.shape[0]
        grouped = self._grouped(weight)
        if made is not None:
            grouped = grouped * made.reshape(group, -1, 1, 1)
        if read is not None:
            grouped = grouped * read.reshape(group, 1, -1, 1)
        name = self.node.name
        constants.assign(self.node, 1, self._ungrouped(grouped, weight), f"{name}.weight")
        bias = constant(input_at(self.node, 2)) if made is not None else None
        if bias is not None and made is not None:
            scaled = (bias.astype(np.float64).reshape(-1) * made).astype(bias.dtype)
            constants.assign(self.node, 2, scaled, f"{name}.bias")

    def repeat(self, constants: Initializers, channels: npt.NDArray[np.int64]) -> None:
        """Let a dense layer read these channels in place of its own, each with its weights.

        Args:
            constants: of the model.
            channels: which of the channels that it read each of the new ones is.
        """
        weight = constant(self.node.inputs[1])
        assert weight is not None
        axis = 0 if _inputs_first(self.node) else 1
        taken = np.take(weight, channels, axis)
        constants.assign(self.node, 1, taken, f"{self.node.name}.weight")

    def _grouped(self, weight: Array) -> Float64:
        group, made, read, kernel = self.shape
        wide = weight.astype(np.float64)
        if _inputs_first(self.node):
            return wide.reshape(group, read, made, kernel).transpose(0, 2, 1, 3)
        return wide.reshape(self.shape)

    def _ungrouped(self, grouped: Float64, weight: Array) -> Array:
        if _inputs_first(self.node):
            grouped = grouped.transpose(0, 2, 1, 3)
        return grouped.reshape(weight.shape).astype(weight.dtype)


def linear_of(node: ir.Node | None) -> Linear | None:
    """Return a node as a linear operator of which the weight may be changed, or ``None``."""
    if node is None or not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    weight, bias = input_at(node, 1), input_at(node, 2)
    array = constant(weight)
    if weight is None or array is None or not array.size or only_user(weight) is not node:
        return None
    if not np.issubdtype(array.dtype, np.floating):
        return None
    group = int_attribute(node, "group", 1)
    shape = _SHAPES[node.op_type](node, array.shape, group)
    if shape is None:
        return None
    convolution = is_op(node, "Conv", "ConvTranspose")
    found = Linear(node, 1 if convolution else -1, array.ndim if convolution else 0, shape)
    vector = constant(bias)
    if bias is not None and (vector is None or not _is_vector(vector.shape, found.outputs)):
        return None
    return found


def _is_vector(shape: tuple[int, ...], channels: int) -> bool:
    """Whether a bias has one number for each channel; one for all would have to become many."""
    return shape[-1:] == (channels,) and int(np.prod(shape)) == channels


def _inputs_first(node: ir.Node) -> bool:
    return is_op(node, "ConvTranspose", "MatMul") or (
        is_op(node, "Gemm") and not int_attribute(node, "transB", 0)
    )


_Shape = tuple[int, int, int, int]


def _conv(node: ir.Node, shape: tuple[int, ...], group: int) -> _Shape | None:
    if len(shape) < 3 or group < 1 or shape[0] % group:
        return None
    return group, shape[0] // group, shape[1], int(np.prod(shape[2:]))


def _conv_transpose(node: ir.Node, shape: tuple[int, ...], group: int) -> _Shape | None:
    if len(shape) < 3 or group < 1 or shape[0] % group:
        return None
    return group, shape[1], shape[0] // group, int(np.prod(shape[2:]))


def _gemm(node: ir.Node, shape: tuple[int, ...], group: int) -> _Shape | None:
    if len(shape) != 2 or int_attribute(node, "transA", 0):
        return None
    outputs, inputs = shape if int_attribute(node, "transB", 0) else shape[::-1]
    return 1, outputs, inputs, 1


def _matmul(node: ir.Node, shape: tuple[int, ...], group: int) -> _Shape | None:
    return (1, shape[1], shape[0], 1) if len(shape) == 2 else None


_SHAPES: dict[str, Callable[[ir.Node, tuple[int, ...], int], _Shape | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
