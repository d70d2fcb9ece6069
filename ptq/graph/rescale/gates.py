"""Cut what a gate shuts out, and compute gates apart, so that channels can be rescaled.

``hardswish(x) = x * clip(x / 6 + 1/2, 0, 1)`` lets no factor through: the gate wants x as it is.
It has no slope below -3, so that x can be cut there; codes are not spent then on what comes out as
0. And where a depthwise convolution reads the product, each channel wants a scale of its own:

    hardswish(x) / s = (x / (6 s)) * clip(x + 3, 0, 6)

Here a convolution makes ``x / (6 s)`` and a copy of it ``x + 3``, which saturates; s goes into the
weights of the depthwise one. In integers the copy takes the place of the gate's own clipping.

The factors are those of cross-layer equalization (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, equation 7), which end at such a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq.graph.passes.edit import Initializers, constant, input_at, is_op, only_user
from ptq.graph.rescale.apply import fitting
from ptq.graph.rescale.linear import Float64, Linear, linear_of

#: Where the gate of a HardSwish begins to open, and where it is wide open.
SHUT, OPEN = -3.0, 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """A HardSwish of what a convolution makes, which only depthwise convolutions read.

    Attributes:
        node: the HardSwish.
        maker: the convolution.
        readers: the depthwise convolutions.
    """

    node: ir.Node
    maker: Linear
    readers: tuple[Linear, ...]

    @property
    def name(self) -> str:
        """The name of what it puts out."""
        return self.node.outputs[0].name or ""

    @property
    def tensor(self) -> str:
        """The name of what the convolution puts out."""
        return self.maker.node.outputs[0].name or ""

    @property
    def channels(self) -> int:
        """How many channels it has."""
        return self.maker.outputs


def find_gated(model: ir.Model) -> list[Gated]:
    """Return the gates of the main graph that can be computed apart, in its order."""
    found = []
    for node in model.graph:
        maker = _behind_convolution(node)
        readers = _depthwise_readers(node.outputs[0]) if maker is not None else ()
        if maker is not None and readers and readers[0].inputs == maker.outputs:
            found.append(Gated(node, maker, readers))
    return found


def find_cut(model: ir.Model) -> list[ir.Node]:
    """Return each HardSwish of the main graph that alone reads what a convolution makes."""
    return [node for node in model.graph if _behind_convolution(node) is not None]


def apply_gates(model: ir.Model, factors: Mapping[str, str], *, cut: bool) -> None:
    """Compute gates apart and divide what they let through, and cut what the others shut out.

    Args:
        model: the prepared model, changed in place.
        factors: by the name of what the HardSwish puts out, as `ptq.graph.rescale.apply.encode`
            writes them. A channel of x must not fall below ``-s`` where s is less than 3.
        cut: whether to cut the input of every other HardSwish.

    Raises:
        ModelError: the factors are of another model.
    """
    found = {gated.name: gated for gated in find_gated(model)}
    constants = Initializers(model)
    for gated, scale in fitting(found, factors):
        _split(gated, scale, constants)
    for node in find_cut(model) if cut else ():
        _cut(node, SHUT, constants)


def _behind_convolution(node: ir.Node) -> Linear | None:
    """Return the convolution of which a HardSwish alone reads the output."""
    if not is_op(node, "HardSwish"):
        return None
    before = node.inputs[0]
    maker = linear_of(None if before is None else before.producer())
    if before is None or maker is None or maker.axis != 1 or only_user(before) is not node:
        return None
    return maker


def _depthwise_readers(value: ir.Value) -> tuple[Linear, ...]:
    if value.is_graph_output():
        return ()
    found = [
        linear_of(user) if index == 0 and user.graph is value.graph else None
        for user, index in value.uses()
    ]
    depthwise = tuple(e for e in found if e is not None and e.axis == 1 and e.depthwise)
    return depthwise if len(depthwise) == len(found) else ()


def _split(gated: Gated, scale: Float64, constants: Initializers) -> None:
    node, conv, name = gated.node, gated.maker.node, gated.name
    x, graph = conv.outputs[0], node.graph
    assert graph is not None
    weight, bias = constant(conv.inputs[1]), constant(input_at(conv, 2))
    assert weight is not None
    shifted = np.full(gated.channels, OPEN) if bias is None else bias.astype(np.float64) + OPEN
    copies = [
        constants.add(f"{name}/sum.{part}", array.astype(np.float32))
        for part, array in (("weight", weight), ("bias", shifted.reshape(-1)))
    ]
    gate = ir.node(conv.op_type, [conv.inputs[0], *copies], conv.attributes, name=f"{name}/sum")
    ends = [
        constants.add(f"{name}/{n}", np.array(v, np.float32)) for n, v in (("lo", 0), ("hi", 6))
    ]
    opened = ir.node("Clip", [gate.outputs[0], *ends], name=f"{name}/opened")
    for new in (gate, opened):
        made = new.outputs[0]
        made.name, made.type, made.shape = new.name, x.type, x.shape
    graph.insert_before(node, [gate, opened])
    width = OPEN - SHUT
    gated.maker.scale(constants, 1 / (width * scale), None)
    # where s is 3 or more, x / (6 s) reaches this only where the gate is shut
    _cut(node, -1 / width, constants)
    node.op_type = "Mul"
    node.resize_inputs(2)
    node.replace_input_with(1, opened.outputs[0])
    for reader in gated.readers:
        reader.scale(constants, None, scale)


def _cut(node: ir.Node, least: float, constants: Initializers) -> None:
    """Put a Clip in front of a node, which the convolution before it takes over."""
    x, graph = node.inputs[0], node.graph
    assert x is not None
    assert graph is not None
    bound = constants.add(f"{x.name}/least", np.array(least, np.float32))
    clip = ir.node("Clip", [x, bound], name=f"{x.name}/cut")
    made = clip.outputs[0]
    made.name, made.type, made.shape = f"{x.name}/cut", x.type, x.shape
    graph.insert_before(node, clip)
    node.replace_input_with(0, made)
