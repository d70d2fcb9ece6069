"""What onnx's version converter leaves undone.

Found by running every operator whose definition changed between opset 6 and 21 before and after
the conversion (onnx 1.23.2). Each gap is either closed here or refused, never passed over: the
converted model would be valid and compute something else.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptq.errors import UnsupportedError
from ptq.graph.passes.edit import (
    Initializers,
    constant,
    input_at,
    int_attribute,
    is_op,
    rank,
)


def before_conversion(model: ir.Model, opset: int) -> None:
    """Prepare a model of an old opset for the conversion.

    Raises:
        UnsupportedError: a PRelu or Hardmax whose meaning changed and which nothing now can say.
    """
    for node in model.graph.all_nodes():
        if opset < 7 and is_op(node, "PRelu"):
            _require_one_slope(node)
        if opset < 13 and is_op(node, "Hardmax"):
            _require_last_axis(node)


def after_conversion(model: ir.Model, opset: int) -> None:
    """Mend a converted model.

    Args:
        model: the converted model.
        opset: the version that it was converted from.

    Raises:
        UnsupportedError: a GroupNormalization whose parameters cannot be spread over the channels.
    """
    constants = Initializers(model)
    for node in model.graph.all_nodes():
        if opset < 11 and is_op(node, "Resize"):
            _sample_as_before(node)
        if 18 <= opset < 21 and is_op(node, "GroupNormalization"):
            _spread_over_channels(node, constants)


def _require_one_slope(node: ir.Node) -> None:
    """Before opset 7 a vector of slopes went along axis 1, now it goes along the last axis."""
    slope = input_at(node, 1)
    if slope is None or slope.shape is None or slope.shape != ir.Shape([1]):
        _refuse(node, "has a slope per channel")


def _require_last_axis(node: ir.Node) -> None:
    """Before opset 13 Hardmax flattened what comes after its axis."""
    dims = rank(node.inputs[0])
    axis = int_attribute(node, "axis", 1)
    if axis != -1 and (dims is None or axis != dims - 1):
        _refuse(node, "does not go along the last axis")
    node.attributes.add(ir.AttrInt64("axis", -1))


def _sample_as_before(node: ir.Node) -> None:
    """Give Upsample and Resize of opset 10 the coordinates that they had."""
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    node.attributes.add(ir.AttrString("nearest_mode", "floor"))


def _spread_over_channels(node: ir.Node, constants: Initializers) -> None:
    """Repeat scale and bias, one per group before opset 21, for every channel."""
    groups = int_attribute(node, "num_groups", 1)
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    for index, name in ((1, "scale"), (2, "bias")):
        array = constant(input_at(node, index))
        if array is None or not isinstance(channels, int) or array.size != groups:
            _refuse(node, "has a scale or a number of channels that is not known")
        else:
            repeated = np.repeat(array, channels // groups)
            constants.assign(node, index, repeated, f"{node.name}.{name}")


def _refuse(node: ir.Node, what: str) -> None:
    raise UnsupportedError(
        f"node '{node.name or node.outputs[0].name}' ({node.op_type}) {what} and cannot be "
        "converted to opset 21; export the model with opset 21"
    )
