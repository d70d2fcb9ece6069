"""What layers of a quantized graph read, put out as codes, or as values where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.cut import put_out
from ptq.graph.held import is_dequantizer, params_of
from ptq.graph.passes.edit import constant, int_attribute, ints_attribute, is_op, text_attribute
from ptq.graph.site import Site
from ptq.graph.types import Model
from ptq.numerics.patches import Window


@dataclass(frozen=True, slots=True)
class LayerInput:
    """What a layer multiplies by its weight.

    Attributes:
        weight: the weight, by name.
        output: the output that holds the codes of what it reads, or the values.
        zero_point: the code of 0; ``None`` where they are values.
        window: how it walks over them, if it is a convolution.
    """

    weight: str
    output: str
    zero_point: int | None
    window: Window | None


@dataclass(frozen=True, slots=True, eq=False)
class LayerInputs:
    """A serialized model that puts out what layers read.

    Attributes:
        model: its bytes; external data lies where it did.
        inputs: the inputs that it needs.
        layers: what the layers read; several may read the same. None of a layer that does not
            read 8-bit codes of one scale.
    """

    model: bytes
    inputs: tuple[str, ...]
    layers: tuple[LayerInput, ...]


def tap_layer_inputs(quantized: Model, sites: Sequence[Site]) -> LayerInputs:
    """Return a quantized model that puts out what layers read, and computes what that needs alone.

    Args:
        quantized: what `emit_qdq` wrote; it is not changed.
        sites: linear sites of the float model, for which `rows_axis` is known.
    """
    clone = quantized.clone()
    nodes = {node.name or "": node for node in clone.graph}
    codes: dict[str, ir.Value] = {}
    zeros: dict[str, int] = {}
    for site in sites:
        read = nodes[site.name].inputs[0]
        maker = None if read is None else read.producer()
        params = params_of(maker) if maker is not None and is_dequantizer(maker) else None
        value = None if maker is None else maker.inputs[0]
        if value is None or params is None or params.axis is not None:
            continue
        if params.zero_point.dtype.itemsize > 1:
            continue
        if value.type is None:
            value.dtype = ir.DataType.from_numpy(params.zero_point.dtype)
        codes[site.name], zeros[site.name] = value, int(params.zero_point)
    made = put_out(clone, codes)
    layers = (
        LayerInput(_weight(s), made.outputs[s.name], zeros[s.name], _window(s))
        for s in sites
        if s.name in codes
    )
    return LayerInputs(made.model, tuple(made.inputs), tuple(layers))


def rows_axis(site: Site) -> int | None:
    """Return the output-channel axis of a weight that can be seen as a matrix of rows."""
    if site.rule.role != "linear" or not is_op(site.node, "Conv", "Gemm", "MatMul"):
        return None
    array = constant(site.weight)
    flat = array is not None and (is_op(site.node, "Conv") or array.ndim == 2)
    return site.weight_axis if flat else None


def groups_of(site: Site) -> int:
    """Return into how many groups the channels of a layer fall."""
    return int_attribute(site.node, "group", 1)


def _weight(site: Site) -> str:
    assert site.weight is not None
    return site.weight.name or ""


def _window(site: Site) -> Window | None:
    array = constant(site.weight)
    assert array is not None
    return window_of(site.node, array.shape)


def window_of(node: ir.Node, shape: tuple[int, ...]) -> Window | None:
    """Return how a convolution walks, of which the weight has this shape; ``None`` of others."""
    if not is_op(node, "Conv"):
        return None
    rank = len(shape) - 2
    return Window(
        kernel=shape[2:],
        strides=tuple(ints_attribute(node, "strides", [1] * rank)),
        dilations=tuple(ints_attribute(node, "dilations", [1] * rank)),
        pads=tuple(ints_attribute(node, "pads", [0] * 2 * rank)),
        auto_pad=text_attribute(node, "auto_pad", "NOTSET"),
        groups=int_attribute(node, "group", 1),
    )
