"""What the rounding of weights takes from layers, where the means of their inputs are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ptq.graph.biases import BiasSlot
from ptq.graph.passes.edit import constant, int_attribute, is_op
from ptq.graph.types import Model
from ptq.graph.weight_errors import dequantized
from ptq.numerics.arrays import F64


def expected_errors(
    model: Model, quantized: Model, slots: Sequence[BiasSlot], means: Mapping[str, F64]
) -> dict[str, F64]:
    """Return E[W x] - E[Q(W) x] for each output channel, by the layers where E[x] is known.

    Reference: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", ICCV 2019, section 4.2. As there, positions at the border count as all others.

    Args:
        model: the float model.
        quantized: what `emit_qdq` made of it.
        slots: the layers.
        means: of each channel, axis 1 of a tensor, by the name of the tensor.
    """
    layers = {node.name or "": node for node in model.graph}
    nodes = {node.name or "": node for node in quantized.graph}
    found = {}
    for slot in slots:
        layer = layers[slot.node]
        value, weight = layer.inputs[0], constant(layer.inputs[1])
        mean = means.get(value.name or "") if value is not None else None
        if mean is None or weight is None or not is_op(layer, "Conv", "Gemm"):
            continue
        lost = weight.astype(np.float64) - dequantized(nodes[slot.node].inputs[1])
        shift = _convolved(layer, lost, mean) if is_op(layer, "Conv") else _dense(layer, lost, mean)
        if shift is not None:
            found[slot.node] = shift
    return found


def _convolved(layer: ir.Node, lost: F64, mean: F64) -> F64 | None:
    group = int_attribute(layer, "group", 1)
    if mean.size != lost.shape[1] * group:
        return None
    kernels = lost.reshape(group, -1, lost.shape[1], int(np.prod(lost.shape[2:]))).sum(axis=3)
    shift: F64 = np.einsum("goi,gi->go", kernels, mean.reshape(group, -1)).reshape(-1)
    return shift


def _dense(layer: ir.Node, lost: F64, mean: F64) -> F64 | None:
    if int_attribute(layer, "transA", 0):
        return None
    matrix = lost if int_attribute(layer, "transB", 0) else lost.T
    return matrix @ mean if matrix.shape[1] == mean.size else None
