"""Find the blocks of a network: parts of it with one output, that are reconstructed at once.

A block is what lies between a value and the operator where all that was made of it comes together
again: a residual block, attention, a gate. What is in none is a layer for itself. The activation
function behind either belongs to it: errors that it swallows do not count.

Reference: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block
Reconstruction", ICLR 2021, section 3.2: layers of one block depend on one another, those of
different blocks little.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.passes.edit import is_constant, is_op, subgraphs

#: With more layers, a block is too many at once: that of a transformer's attention has four.
_MOST_LAYERS = 8

#: An activation function that is spelled out has fewer operators.
_MOST_SPELLED = 12

#: What an activation function is, or is made of.
_ELEMENTWISE = frozenset(
    {"Abs", "Add", "BatchNormalization", "Cast", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu"}
    | {"HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul"}
    | {"Neg", "PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub"}
    | {"Sum", "Tanh", "ThresholdedRelu"}
)

#: What multiplies by weights.
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a graph that puts out one value.

    Attributes:
        nodes: names of its operators, in graph order.
        layers: those among them whose weights are to be found.
        inputs: names of the values that it reads, without constants.
        output: the name of what it puts out.
    """

    nodes: tuple[str, ...]
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str


def find_layers(graph: ir.Graph, layers: Collection[str]) -> tuple[Block, ...]:
    """Return a block for each layer, in graph order: it and the activation function behind it.

    Args:
        graph: a prepared one, in order.
        layers: names of the operators whose weights are to be found.
    """
    flow = _Flow(graph)
    return tuple(flow.block({n}, n, layers) for n in flow.nodes if n.name in layers)


def find_blocks(
    graph: ir.Graph, layers: Collection[str], *, most: int = _MOST_LAYERS
) -> tuple[Block, ...]:
    """Return the blocks that have these layers, each in one of them, in graph order.

    Of blocks within blocks it is the largest one that counts, up to a number of layers.

    Args:
        graph: a prepared one, in order.
        layers: names of the operators whose weights are to be found.
        most: how many of them a block may have.
    """
    flow = _Flow(graph)
    regions = [
        (end, region)
        for end, region in flow.regions()
        if 1 <= sum(n.name in layers for n in region) <= most
    ]
    regions.sort(key=lambda found: len(found[1]), reverse=True)
    taken: set[ir.Node] = set()
    blocks: list[Block] = []
    for end, region in regions:
        if not taken & region:
            taken |= region
            blocks.append(flow.block(region, end, layers))
    alone = [n for n in flow.nodes if n.name in layers and n not in taken]
    blocks += [flow.block({n}, n, layers) for n in alone]
    place = {n.name: i for i, n in enumerate(flow.nodes)}
    return tuple(sorted(blocks, key=lambda block: place[block.nodes[-1]]))


class _Flow:
    """How data flows through a graph, from the first values that layers read.

    What no layer comes before, and layers do not read, only helps, as masks do: blocks read it.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes = list(graph)
        self.place = {n: i for i, n in enumerate(self.nodes)}
        self.still: set[ir.Value] = set(graph.inputs)
        self.sources: dict[ir.Node, tuple[ir.Node | ir.Value, ...]] = {}
        self.above: dict[ir.Node, ir.Node | ir.Value | None] = {}
        self.depth: dict[ir.Node | ir.Value | None, int] = {None: 0}
        for node in self.nodes:
            self._enter(node)
        self._spelled: dict[ir.Node, list[tuple[ir.Node, set[ir.Node]]]] | None = None

    def _enter(self, node: ir.Node) -> None:
        """Find the one operator, or input, that all that reaches this one went through last."""
        layer = is_op(node, *_LINEAR)
        read = [v for v in node.inputs if v is not None and (self._flows(v) or layer)]
        read = [v for v in read if not is_constant(v)]
        if not read or is_op(node, "Shape", "Size"):
            self.still.update(node.outputs)
        made = (v if v in self.still else v.producer() or v for v in read)
        sources: list[ir.Node | ir.Value] = list(dict.fromkeys(made))
        for source in sources:
            self.depth.setdefault(source, 1)
        self.sources[node] = tuple(sources)
        common: ir.Node | ir.Value | None = sources[0] if sources else None
        for other in sources[1:]:
            common = self._meet(common, other)
        self.above[node] = common
        self.depth[node] = self.depth[common] + 1

    def _meet(
        self, one: ir.Node | ir.Value | None, other: ir.Node | ir.Value | None
    ) -> ir.Node | ir.Value | None:
        while one is not other:
            if self.depth[one] < self.depth[other]:
                one, other = other, one
            one = self.above.get(one) if isinstance(one, ir.Node) else None
        return one

    def _flows(self, value: ir.Value) -> bool:
        return value not in self.still or value in self.depth

    def regions(self) -> Iterable[tuple[ir.Node, set[ir.Node]]]:
        """Yield what lies between a value and where all that was made of it comes together."""
        for node in self.nodes:
            if len(self.sources[node]) > 1 and self.above[node] is not None:
                region = self._between(self.above[node], node)
                if self._is_closed(region, node):
                    yield node, region

    def _between(self, start: ir.Node | ir.Value | None, end: ir.Node) -> set[ir.Node]:
        found, rest = {end}, [end]
        while rest:
            for source in self.sources[rest.pop()]:
                if source is not start and isinstance(source, ir.Node) and source not in found:
                    found.add(source)
                    rest.append(source)
        return found

    def _is_closed(self, region: set[ir.Node], end: ir.Node) -> bool:
        """Whether all that a region makes is read in it, but by its end."""
        return (
            not any(subgraphs(n) for n in region)
            and len(end.outputs) == 1
            and all(
                n is end or (not v.is_graph_output() and all(u in region for u, _ in v.uses()))
                for n in region
                for v in n.outputs
            )
        )

    def block(self, region: set[ir.Node], end: ir.Node, layers: Collection[str]) -> Block:
        """Return a block, with the activation function behind it."""
        region = set(region)
        while (more := self._behind(end)) is not None:
            end, added = more
            region |= added
        nodes = sorted(region, key=lambda n: self.place[n])
        made = {v for n in nodes for v in n.outputs}
        read = (v for n in nodes for v in n.inputs if v is not None and not is_constant(v))
        return Block(
            nodes=tuple(n.name or "" for n in nodes),
            layers=tuple(n.name or "" for n in nodes if n.name in layers),
            inputs=tuple(dict.fromkeys(v.name or "" for v in read if v not in made)),
            output=end.outputs[0].name or "",
        )

    def _behind(self, end: ir.Node) -> tuple[ir.Node, set[ir.Node]] | None:
        """Return where the next part of an activation function ends, and its operators."""
        value = end.outputs[0]
        readers = {user for user, _ in value.uses()}
        if not readers or value.is_graph_output() or not readers <= self.place.keys():
            return None
        if len(readers) == 1:
            (reader,) = readers
            if _is_elementwise(reader) and self.sources[reader] == (end,):
                return reader, {reader}
        for last, region in self._functions().get(end, ()):
            if readers <= region:
                return last, region
        return None

    def _functions(self) -> Mapping[ir.Node, Sequence[tuple[ir.Node, set[ir.Node]]]]:
        """Return regions of elementwise operators alone, by the operator before them."""
        if self._spelled is None:
            found: dict[ir.Node, list[tuple[ir.Node, set[ir.Node]]]] = {}
            for last, region in self.regions():
                start = self.above[last]
                small = len(region) <= _MOST_SPELLED and all(map(_is_elementwise, region))
                if small and isinstance(start, ir.Node):
                    found.setdefault(start, []).append((last, region))
            self._spelled = found
        return self._spelled


def _is_elementwise(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in _ELEMENTWISE
