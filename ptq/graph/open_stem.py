"""Give the first convolution of an image network enough channels for the fast integer kernels.

They want input channels in fours, and an image has three. Where the convolution has stride 2, its
input can be folded: SpaceToDepth turns each 2 x 2 pixels into one with 12 channels, and a
convolution of stride 1 over these, with the weights laid out anew, computes the same sums.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

#: More input channels than this are fast without.
_FEW_CHANNELS = 3

_BLOCK = 2


def stems(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the convolutions of a float model that `open_stems` may be asked for."""
    return tuple(node.name or "" for node in model.graph if _is_stem(node))


def open_stems(model: ir.Model, names: Collection[str]) -> int:
    """Fold the input of these convolutions of a quantized model, in place; return how many.

    What is computed stays the same to the bit: the same products are added in another order, in
    integers. A convolution whose image has an odd side, or whose codes do not come straight from
    QuantizeLinear and DequantizeLinear, is left as it is.

    Args:
        model: what `emit_qdq` wrote.
        names: of the convolutions.
    """
    nodes = [n for n in model.graph if n.name in names and n.op_type == "Conv"]
    return sum(_open(model.graph, node) for node in nodes)


def _is_stem(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type != "Conv":
        return False
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None or weight.const_value is None or x.shape is None:
        return False
    shape, kernel = x.shape, weight.const_value.shape
    channels = kernel[1]
    if len(shape) != 4 or not isinstance(channels, int) or channels > _FEW_CHANNELS:
        return False
    sides = shape[2], shape[3]
    even = all(isinstance(side, int) and side % _BLOCK == 0 for side in sides)
    plain = "auto_pad" not in node.attributes or node.attributes["auto_pad"].value == "NOTSET"
    strides, dilations = _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1))
    return _group(node) == 1 and even and plain and strides == (2, 2) and dilations == (1, 1)


def _open(graph: ir.Graph, node: ir.Node) -> bool:
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    read, unpacked = x.producer(), weight.producer()
    if read is None or unpacked is None:
        return False
    if read.op_type != "DequantizeLinear" or unpacked.op_type != "DequantizeLinear":
        return False
    codes, kernel = read.inputs[0], unpacked.inputs[0]
    zero_point = unpacked.inputs[2] if len(unpacked.inputs) > 2 else None
    if codes is None or kernel is None or kernel.const_value is None:
        return False
    if len(kernel.uses()) != 1 or len(unpacked.outputs[0].uses()) != 1:
        return False  # another convolution reads the weight as it is
    array = kernel.const_value.numpy()
    blank = _only(zero_point)
    pads = _ints(node, "pads", (0, 0, 0, 0))
    if blank is None:
        return False
    size = array.shape[2:]
    folded, before = _folded(array, (pads[0], pads[1]), blank)
    # as many outputs as before: (side + pads - size) // 2 + 1 of side / 2 blocks
    after = [
        (pads[i] + pads[i + 2] - size[i]) // _BLOCK + folded.shape[i + 2] - before[i]
        for i in range(2)
    ]
    if min(after) < 0:
        return False
    fold = ir.node("SpaceToDepth", [codes], {"blocksize": _BLOCK}, name=f"{node.name}/SpaceToDepth")
    fold.outputs[0].name = f"{codes.name}/folded"
    again = ir.node("DequantizeLinear", [fold.outputs[0], *read.inputs[1:]], name=f"{fold.name}/DQ")
    again.outputs[0].name = f"{codes.name}/folded/dequantized"
    graph.insert_before(node, [fold, again])
    node.replace_input_with(0, again.outputs[0])
    kernel.const_value = ir.tensor(folded, name=kernel.name)
    kernel.shape = ir.Shape(folded.shape)
    node.attributes["pads"] = ir.AttrInt64s("pads", [*before, *after])
    node.attributes["strides"] = ir.AttrInt64s("strides", [1, 1])
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", list(folded.shape[2:]))
    return True


def _folded(
    kernel: np.ndarray, pads: tuple[int, ...], blank: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the weights over blocks, and how many blocks to pad before.

    Tap ``k`` reads pixel ``2 i + k - pad``: block ``i + (k - pad) // 2``, place ``(k - pad) % 2``.

    Args:
        kernel: codes, shape ``(out, in, height, width)``.
        pads: pixels before, for both sides.
        blank: the code of a weight that is 0.
    """
    taps = [np.arange(kernel.shape[i + 2]) - pads[i] for i in range(2)]
    first = [int(t[0] // _BLOCK) for t in taps]
    sizes = [int(t[-1] // _BLOCK) - f + 1 for t, f in zip(taps, first, strict=True)]
    outputs, channels = kernel.shape[:2]
    blocks = np.full((outputs, _BLOCK, _BLOCK, channels, *sizes), blank, kernel.dtype)
    for i, row in enumerate(taps[0]):
        for j, column in enumerate(taps[1]):
            at = row // _BLOCK - first[0], column // _BLOCK - first[1]
            blocks[:, row % _BLOCK, column % _BLOCK, :, at[0], at[1]] = kernel[:, :, i, j]
    folded = blocks.reshape(outputs, _BLOCK * _BLOCK * channels, *sizes)
    return folded, (-first[0], -first[1])


def _group(node: ir.Node) -> int:
    attribute = node.attributes.get("group")
    return 1 if attribute is None else attribute.as_int()


def _only(zero_point: ir.Value | None) -> int | None:
    """Return the code of zero, if all channels have the same."""
    if zero_point is None or zero_point.const_value is None:
        return 0
    values = np.unique(zero_point.const_value.numpy())
    return int(values[0]) if values.size == 1 else None


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())
