"""What a scale and a shift of every output channel do to a linear operator.

A batchnorm in inference mode and an elementwise Mul or Add of constants are the same thing, an
affine map per channel, ``z = scale * y + shift``. Behind ``y = W x + b`` it gives
``z = (scale W) x + (scale b + shift)``; in front of it, ``W (scale x + shift) + b =
(W scale) x + (W shift + b)``. Reference: Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptq.graph.passes.edit import (
    Array,
    Initializers,
    constant,
    float_attribute,
    input_at,
    int_attribute,
    ints_attribute,
    is_op,
    only_user,
    text_attribute,
)

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """The map ``y -> scale * y + shift`` along one axis.

    Attributes:
        scale: float64, shape ``(channels,)`` or ``(1,)``.
        shift: float64, shape ``(channels,)`` or ``(1,)``.
        axis: the channel axis counted from the end, so negative; ``None`` where both have one
            element and any axis will do.
    """

    scale: Float64
    shift: Float64
    axis: int | None

    @property
    def scales(self) -> bool:
        """Whether the scale is not one throughout."""
        return bool((self.scale != 1).any())

    @property
    def shifts(self) -> bool:
        """Whether the shift is not zero throughout."""
        return bool(self.shift.any())

    def fits(self, axis: int, channels: int) -> bool:
        """Return whether it maps tensors of that many channels along that axis."""
        sizes = {self.scale.size, self.shift.size}
        return self.axis in (None, axis) and sizes <= {1, channels}

    def to_bias(self, bias: Array | None, channels: int) -> Float64:
        """Return ``scale * bias + shift``, shape ``(channels,)``; no bias is a bias of zero."""
        old = np.zeros(1) if bias is None else bias.astype(np.float64)
        return np.broadcast_to(self.scale * old + self.shift, (channels,))


def fold_behind(value: ir.Value, affine: Affine, constants: Initializers) -> bool:
    """Let the producer of ``value`` do the affine map as well; return whether it could.

    It can where it is a Conv, ConvTranspose, Gemm or MatMul (and Add of a constant to a MatMul),
    its weight and bias are constants, and nobody else reads ``value`` than the affine map.
    """
    node = value.producer()
    if node is None or only_user(value) is None:
        return False
    if is_op(node, "Conv", "ConvTranspose"):
        return _into_conv(node, affine, constants)
    if is_op(node, "Gemm"):
        return _into_gemm(node, affine, constants)
    if is_op(node, "MatMul"):
        return not affine.shifts and _into_matmul(node, affine, constants)
    if is_op(node, "Add"):
        return _into_matmul_add(node, affine, constants)
    return False


def fold_before(value: ir.Value, affine: Affine, constants: Initializers) -> bool:
    """Let the only consumer of ``value`` do the affine map on its input; return whether it could.

    It can where it is a Gemm or a Conv with constant weight and bias that takes ``value`` as its
    data. A Conv that pads takes no shift: the padding is zero after the map, not ``shift``.
    """
    node = only_user(value)
    producer = value.producer()
    if node is None or producer is None or node.inputs[0] is not value:
        return False
    if node.graph is not producer.graph:
        return False
    if is_op(node, "Conv"):
        legal = not affine.shifts or not _pads(node)
        return legal and _front_of_conv(node, affine, constants)
    if is_op(node, "Gemm"):
        return _front_of_gemm(node, affine, constants)
    return False


def data_rank(node: ir.Node | None) -> int | None:
    """Return the rank of a linear operator's input and output where its weight tells it."""
    if node is None:
        return None
    if is_op(node, "Gemm"):
        return 2
    weight = constant(input_at(node, 1)) if is_op(node, "Conv", "ConvTranspose") else None
    return None if weight is None else weight.ndim


def _pads(node: ir.Node) -> bool:
    auto_pad = text_attribute(node, "auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        return any(ints_attribute(node, "pads"))
    return auto_pad != "VALID"


@dataclass(frozen=True, slots=True, eq=False)
class _Parameters:
    """The constants of a linear operator.

    Attributes:
        weight: ``(out, in / group, *kernel)`` of a Conv, ``(in, out / group, *kernel)`` of a
            ConvTranspose, ``(in, out)`` of a Gemm, or the transpose of that.
        bias: one number per output channel, or one for all; ``None`` where there is none.
        group: the number of groups of a convolution.
    """

    weight: Array
    bias: Array | None
    group: int = 1


def _convolution(node: ir.Node) -> _Parameters | None:
    """Return the constants of a convolution, or ``None`` where one is not constant or is wrong."""
    weight, bias = constant(input_at(node, 1)), constant(input_at(node, 2))
    group = int_attribute(node, "group", 1)
    if weight is None or weight.ndim < 3 or not weight.size or group < 1:
        return None
    if weight.shape[0] % group or (bias is None and input_at(node, 2) is not None):
        return None
    channels = weight.shape[0] if node.op_type == "Conv" else weight.shape[1] * group
    if bias is not None and bias.shape != (channels,):
        return None
    return _Parameters(weight, bias, group)


def _gemm(node: ir.Node) -> _Parameters | None:
    """Return B and beta * C of a Gemm, or ``None`` where one is not constant.

    Refuses a C that differs by row.
    """
    weight, bias = constant(input_at(node, 1)), constant(input_at(node, 2))
    if weight is None or weight.ndim != 2 or (bias is None and input_at(node, 2) is not None):
        return None
    if bias is None:
        return _Parameters(weight, None)
    channels = weight.shape[0 if int_attribute(node, "transB", 0) else 1]
    if bias.size != 1 and not (bias.shape[-1] == bias.size == channels):
        return None
    beta = float_attribute(node, "beta", 1.0)
    return _Parameters(weight, bias.reshape(-1).astype(np.float64) * beta)


def _into_conv(node: ir.Node, affine: Affine, constants: Initializers) -> bool:
    known = _convolution(node)
    if known is None:
        return False
    weight, transposed = known.weight, node.op_type == "ConvTranspose"
    channels = weight.shape[1] * known.group if transposed else weight.shape[0]
    if not affine.fits(1 - weight.ndim, channels):
        return False
    scale = np.broadcast_to(affine.scale, (channels,))
    ones = [1] * (weight.ndim - 2)
    if transposed:  # each group of inputs has its own outputs
        grouped = weight.reshape(known.group, -1, *weight.shape[1:])
        scaled = (grouped * scale.reshape(known.group, 1, -1, *ones)).reshape(weight.shape)
    else:
        scaled = weight * scale.reshape(-1, 1, *ones)
    if affine.scales:
        _assign(node, constants, scaled.astype(weight.dtype))
    if known.bias is not None or affine.shifts:
        _assign_bias(node, constants, affine.to_bias(known.bias, channels).astype(weight.dtype))
    return True


def _front_of_conv(node: ir.Node, affine: Affine, constants: Initializers) -> bool:
    known = _convolution(node)
    if known is None or not affine.fits(1 - known.weight.ndim, known.weight.shape[1] * known.group):
        return False
    weight, group = known.weight, known.group
    # each group of outputs has its own inputs
    grouped = weight.astype(np.float64).reshape(group, -1, *weight.shape[1:])
    scale, shift = (
        np.broadcast_to(a, (weight.shape[1] * group,)).reshape(
            group, 1, -1, *[1] * (weight.ndim - 2)
        )
        for a in (affine.scale, affine.shift)
    )
    _assign(node, constants, (grouped * scale).reshape(weight.shape).astype(weight.dtype))
    if affine.shifts:
        moved = (grouped * shift).sum(axis=tuple(range(2, grouped.ndim))).reshape(-1)
        moved += 0 if known.bias is None else known.bias
        _assign_bias(node, constants, moved.astype(weight.dtype))
    return True


def _into_gemm(node: ir.Node, affine: Affine, constants: Initializers) -> bool:
    """Fold into ``alpha * A @ B + beta * C``."""
    known = _gemm(node)
    if known is None:
        return False
    weight, transposed = known.weight, bool(int_attribute(node, "transB", 0))
    channels = weight.shape[0 if transposed else 1]
    if not affine.fits(-1, channels):
        return False
    scale = affine.scale[:, None] if transposed else affine.scale
    if affine.scales:
        _assign(node, constants, (weight * scale).astype(weight.dtype))
    if known.bias is not None or affine.shifts:
        _assign_bias(node, constants, affine.to_bias(known.bias, channels).astype(weight.dtype))
        node.attributes.pop("beta", None)
    return True


def _front_of_gemm(node: ir.Node, affine: Affine, constants: Initializers) -> bool:
    known = _gemm(node)
    if known is None or int_attribute(node, "transA", 0):
        return False
    weight, transposed = known.weight, bool(int_attribute(node, "transB", 0))
    inputs = weight.shape[1 if transposed else 0]
    if not affine.fits(-1, inputs):
        return False
    if affine.shifts:
        matrix = (weight.T if transposed else weight).astype(np.float64)
        moved = np.broadcast_to(affine.shift, (inputs,)) @ matrix
        moved = moved * float_attribute(node, "alpha", 1.0)
        moved = moved if known.bias is None else moved + known.bias
        _assign_bias(node, constants, moved.astype(weight.dtype))
        node.attributes.pop("beta", None)
    scale = affine.scale if transposed else affine.scale[:, None]
    _assign(node, constants, (weight * scale).astype(weight.dtype))
    return True


def _into_matmul(node: ir.Node, affine: Affine, constants: Initializers) -> bool:
    weight = constant(input_at(node, 1))
    if weight is None or weight.ndim < 2 or not affine.fits(-1, weight.shape[-1]):
        return False
    _assign(node, constants, (weight * affine.scale).astype(weight.dtype))
    return True


def _into_matmul_add(node: ir.Node, affine: Affine, constants: Initializers) -> bool:
    """Fold into ``x @ W + b``, where b is a vector."""
    for index in (0, 1):
        product, bias = node.inputs[1 - index], constant(node.inputs[index])
        if bias is None or bias.ndim > 1 or product is None:
            continue
        producer = product.producer()
        if producer is None or not is_op(producer, "MatMul") or only_user(product) is not node:
            return False
        weight = constant(input_at(producer, 1))
        if weight is None or weight.ndim < 2 or not affine.fits(-1, weight.shape[-1]):
            return False
        channels = weight.shape[-1]
        if bias.size not in (1, channels) or not _into_matmul(producer, affine, constants):
            return False
        folded = affine.to_bias(bias, channels).astype(bias.dtype)
        constants.assign(node, index, folded, f"{node.name}.bias")
        return True
    return False


def _assign(node: ir.Node, constants: Initializers, weight: Array) -> None:
    constants.assign(node, 1, weight, f"{node.name}.weight")


def _assign_bias(node: ir.Node, constants: Initializers, bias: Array) -> None:
    constants.assign(node, 2, bias, f"{node.name}.bias")
