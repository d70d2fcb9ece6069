"""Find tensors whose channels can be rescaled: what makes and what reads them is linear.

``f(s x) = s f(x)`` for s > 0 holds of Relu, LeakyRelu, PRelu, pooling and sums, so that a scale
moves through them; a Clip at 6 holds it where no value reaches 6. Reference: Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1,
which has pairs of layers. Here a sum ties all that it adds, so that a stream of residual blocks is
one group, with several makers and readers.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.passes.edit import constant, input_at, is_op, scalar
from ptq.graph.rescale.linear import Linear, linear_of

#: What a positive scale moves through, whatever the layout.
_ELEMENTWISE = ("Relu", "LeakyRelu", "PRelu", "Identity")

#: Likewise, where channels are axis 1 and what is pooled comes after. Zeros that an AveragePool
#: pads with stay zeros.
_POOLING = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Tensors that one factor for each channel rescales together.

    Attributes:
        tensors: in the order in which they were found; the first gives the group its name.
        makers: the linear operators behind which they begin.
        readers: those in front of which they end.
        shifts: additions of a constant between them, with the index of the constant.
        limits: the upper bound of each Clip between them, by the tensor that it bounds.
    """

    tensors: tuple[ir.Value, ...]
    makers: tuple[Linear, ...]
    readers: tuple[Linear, ...]
    shifts: tuple[tuple[ir.Node, int], ...]
    limits: dict[str, float]

    @property
    def name(self) -> str:
        """The name of the first tensor."""
        return self.tensors[0].name or ""

    @property
    def channels(self) -> int:
        """How many channels its tensors have."""
        return self.makers[0].outputs

    @property
    def axis(self) -> int:
        """The axis of the channels: 1, or -1."""
        return self.makers[0].axis


def find_groups(model: ir.Model) -> list[Group]:
    """Return the groups of the main graph that can be rescaled, in the order of their makers."""
    found: list[Group] = []
    seen: set[ir.Value] = set()
    for node in model.graph:
        maker = linear_of(node)
        if maker is None or node.outputs[0] in seen:
            continue
        search = _Search(model.graph, maker)
        group = search.group()
        seen.update(search.tensors)
        if group is not None:
            found.append(group)
    return found


class _Search:
    """Spreads from the output of one linear operator over all that is rescaled with it."""

    def __init__(self, graph: ir.Graph, first: Linear) -> None:
        self.graph = graph
        self.first = first
        self.tensors: dict[ir.Value, None] = {first.node.outputs[0]: None}
        self.makers: dict[ir.Node, Linear] = {}
        self.readers: dict[ir.Node, Linear] = {}
        self.shifts: dict[ir.Node, int] = {}
        self.limits: dict[str, float] = {}
        self.waiting = [first.node.outputs[0]]

    def group(self) -> Group | None:
        """Return the group, or ``None`` where something about it does not let a scale through."""
        legal = True
        while self.waiting:  # to the end even so: the others of it need no second look
            value = self.waiting.pop()
            legal = self._visit(value) and legal
        if not legal or not self.readers or self.makers.keys() & self.readers.keys():
            return None
        return Group(
            tuple(self.tensors),
            tuple(self.makers.values()),
            tuple(self.readers.values()),
            tuple(self.shifts.items()),
            self.limits,
        )

    def _visit(self, value: ir.Value) -> bool:
        node = value.producer()
        if node is None or value.is_graph_output() or value is not node.outputs[0]:
            return False
        uses = all(
            user.graph is self.graph and self._reads(user, index) for user, index in value.uses()
        )
        return self._makes(node) and uses

    def _makes(self, node: ir.Node) -> bool:
        """Whether the scale can begin in front of this output, or further up."""
        if node in self.makers:
            return True
        linear = linear_of(node)
        if linear is not None:
            self.makers[node] = linear
            return self._alike(linear, linear.outputs)
        return self._passes(node)

    def _reads(self, node: ir.Node, index: int) -> bool:
        """Whether the scale can end at this input, or further down."""
        linear = linear_of(node)
        if linear is not None:
            if index == 0:
                self.readers[node] = linear
            return index == 0 and self._alike(linear, linear.inputs)
        return self._passes(node)

    def _alike(self, linear: Linear, channels: int) -> bool:
        first = self.first
        return (linear.axis, linear.rank, channels) == (first.axis, first.rank, first.outputs)

    def _passes(self, node: ir.Node) -> bool:
        """Whether a scale passes a node; what it reads and makes then belongs to the group."""
        data = self._data_of(node)
        if data is None or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            return False
        for value in (*data, node.outputs[0]):
            if value not in self.tensors:
                self.tensors[value] = None
                self.waiting.append(value)
        return True

    def _data_of(self, node: ir.Node) -> tuple[ir.Value, ...] | None:
        """Return the inputs of which a scale passes to the output, or ``None``."""
        value, other = input_at(node, 0), input_at(node, 1)
        if value is None:
            return None
        if is_op(node, "PRelu"):
            return (value,) if constant(other) is not None else None
        if is_op(node, *_ELEMENTWISE) or (self.first.axis == 1 and is_op(node, *_POOLING)):
            return (value,)
        if is_op(node, "Clip"):
            return (value,) if self._clips(node) else None
        if is_op(node, "Add"):
            return self._added(node)
        return None

    def _clips(self, node: ir.Node) -> bool:
        """Whether a Clip is a Relu with an upper bound."""
        hi = scalar(input_at(node, 2))
        if scalar(input_at(node, 1)) != 0 or (hi is None and input_at(node, 2) is not None):
            return False
        if hi is not None and hi != float("inf"):
            self.limits[node.inputs[0].name or ""] = hi  # type: ignore[union-attr]
        return hi is None or hi > 0

    def _added(self, node: ir.Node) -> tuple[ir.Value, ...] | None:
        """Return what an Add sums up, without the constant that may be among it."""
        data = []
        for index, value in enumerate(node.inputs):
            assert value is not None
            vector = constant(value)
            if vector is None:
                data.append(value)
            elif self._is_shift(vector.shape):
                self.shifts[node] = index
            else:
                return None
        return tuple(data)

    def _is_shift(self, shape: tuple[int, ...]) -> bool:
        """Whether a constant has one number for each channel of a tensor that it is added to."""
        channels = self.first.outputs
        ones = (1,) * (self.first.rank - 2) if self.first.axis == 1 else ()
        return shape in ((channels, *ones), (1, channels, *ones))
