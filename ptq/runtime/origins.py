"""Say which nodes of a model a kernel of onnxruntime's optimized graph stands for.

The optimizers merge nodes and rename what is left. A Conv in the NCHWc layout is called after the
tensor that it makes, a merged node after any of its parts, and a Conv to which the runtime has
added the Add behind it keeps a name that does not tell. So names are only where the search begins:
what lies between the kernels is divided among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from ptq.errors import ModelError

#: What optimizers put behind the name of a node that they move, merge or copy.
_SUFFIX = re.compile(r"(_nhwc|_token_\d+|/\w*Fusion\w*/?|/duplicated|_\d+_nchwc)$")

#: What they put before it: an If whose condition is constant is replaced by its branch.
_PREFIX = re.compile(r"^(fused |.*_branch__Inline_\d+__)", re.DOTALL)

#: Kernels that only change the layout; they make a tensor of the model, but do no node's work.
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})


@dataclass(frozen=True, slots=True)
class Kernel:
    """A node of the optimized graph.

    Attributes:
        name: what onnxruntime calls it.
        op_type: its type.
        outputs: the tensors that it makes, as the optimized graph calls them.
        merged: types of nodes that a Conv has taken in from behind, in order: Add, Relu.
    """

    name: str
    op_type: str
    outputs: tuple[str, ...]
    merged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """What of the model a kernel stands for: its nodes, and the tensors they make, by name."""

    nodes: frozenset[str]
    tensors: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Origins:
    """The nodes of a model, to be looked up by what its optimized graph is made of.

    Args:
        proto: the model; nodes without a name get one in place, as `FixNames` would give it.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.renamed = _name(proto)
        self._nodes = [
            _Node(n.name, n.op_type, tuple(n.input), tuple(n.output))
            for n in _all_nodes(proto.graph)
            if n.op_type != "Constant"
        ]
        self._by_name = {node.name: node for node in self._nodes}
        self._maker = {t: node for node in self._nodes for t in node.outputs if t}

    def of(self, kernels: Sequence[Kernel]) -> list[Origin]:
        """Return the origin of each kernel, given all of them in the order in which they run.

        A node belongs to one kernel, unless the runtime has copied it. Kernels that only convert
        a layout have no origin.
        """
        claims = _Claims()
        for i, kernel in enumerate(kernels):
            if kernel.op_type not in _LAYOUT:
                claims.add(i, self._called(kernel.name))
        for i, kernel in enumerate(kernels):
            if kernel.op_type not in _LAYOUT:
                claims.add(i, self._made(kernel))
        for i, kernel in enumerate(kernels):
            if kernel.merged:
                self._claim_merged(claims, i, kernel.merged)
        self._claim_before(claims)
        self._claim_behind(claims)
        return [
            _origin(claims.nodes.get(i) or self._called(kernel.name))
            for i, kernel in enumerate(kernels)
        ]

    def _called(self, name: str) -> list[_Node]:
        """Return the node that a kernel is named after, directly or through its output."""
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            if name in self._by_name:
                return [self._by_name[name]]
            if name.endswith("_nchwc") and (made := self._maker_of(name.removesuffix("_nchwc"))):
                return [made]
            shorter = _SUFFIX.sub("", name)
            name = shorter if shorter != name else _PREFIX.sub("", name)
        return []

    def _maker_of(self, tensor: str) -> _Node | None:
        # the second is what a tensor is called where the runtime has put a QuantizeLinear behind it
        return self._maker.get(tensor) or self._maker.get(tensor.removesuffix("_pre_q"))

    def _made(self, kernel: Kernel) -> list[_Node]:
        """Return the nodes that make what a kernel makes."""
        made = [node for t in kernel.outputs if (node := self._maker_of(t))]
        # one that the runtime put behind a node, to change the layout of what the node makes
        added = kernel.op_type == "Transpose" and not self._called(kernel.name)
        return [node for node in made if not added or node.op_type == "Transpose"]

    def _claim_merged(self, claims: _Claims, kernel: int, merged: tuple[str, ...]) -> None:
        """Give a Conv what was merged into it without leaving a trace in its name."""
        for last in claims.nodes.get(kernel, [])[:1]:
            within = self._down_to_conv(last)
            for op_type in merged:
                if op_type in within:  # the kernel is called after what comes behind it
                    continue
                for node in self._nodes:
                    follows = node.op_type == op_type and set(node.inputs) & set(last.outputs)
                    if follows and claims.add(kernel, [node]):
                        last = node
                        break

    def _down_to_conv(self, node: _Node) -> set[str]:
        """Return the types of a node and those before it, to the nearest Conv."""
        types = {node.op_type}
        while "Conv" not in types and node.inputs and node.inputs[0] in self._maker:
            node = self._maker[node.inputs[0]]
            types.add(node.op_type)
        return types

    def _claim_before(self, claims: _Claims) -> None:
        """Give each kernel what lies between it and the kernels before: a Conv under its Clip."""
        for i, nodes in list(claims.nodes.items()):
            waiting = [node for node in nodes if node.op_type != "DequantizeLinear"]
            while waiting:
                for tensor in waiting.pop().inputs:
                    maker = self._maker.get(tensor)
                    # QuantizeLinear and DequantizeLinear go with the kernel before them
                    if maker is None or maker.op_type == "DequantizeLinear":
                        continue
                    if claims.add(i, [maker]):
                        waiting.append(maker)

    def _claim_behind(self, claims: _Claims) -> None:
        """Give what is left to the kernel that makes the last of its inputs: Q and DQ, an Add."""
        moved = True
        while moved:  # nodes need not be in order, and subgraphs are listed before what follows
            moved = False
            for node in self._nodes:
                makers = [self._maker[t] for t in node.inputs if t in self._maker]
                owners = [claims.owner[m.name] for m in makers if m.name in claims.owner]
                if owners:
                    moved |= claims.add(max(owners), [node])


@dataclass(slots=True)
class _Claims:
    """Who owns which node; the first claim counts."""

    owner: dict[str, int] = field(default_factory=dict)
    nodes: dict[int, list[_Node]] = field(default_factory=dict)

    def add(self, kernel: int, nodes: Sequence[_Node]) -> bool:
        """Claim nodes for a kernel; return whether one of them was free."""
        free = [node for node in nodes if node.name not in self.owner]
        for node in free:
            self.owner[node.name] = kernel
            self.nodes.setdefault(kernel, []).append(node)
        return bool(free)


def read_proto(model: bytes | Path) -> onnx.ModelProto:
    """Parse a model without its external data.

    Raises:
        ModelError: it is no ONNX model.
    """
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(model if isinstance(model, bytes) else model.read_bytes())
    except DecodeError as error:
        raise ModelError("not an ONNX model; give the .onnx file") from error
    except OSError as error:
        raise ModelError(f"'{model!s}' cannot be read ({error.strerror})") from error
    return proto


def kernels_of(optimized: Path) -> list[Kernel]:
    """Return the kernels of an optimized graph that onnxruntime wrote, those of branches too."""
    graph = read_proto(optimized).graph
    return [Kernel(n.name, n.op_type, tuple(n.output), _merged(n)) for n in _all_nodes(graph)]


def _merged(node: onnx.NodeProto) -> tuple[str, ...]:
    if node.op_type != "Conv":
        return ()
    # both are onnxruntime's own: a fourth input, and an attribute
    added = ("Add",) if len(node.input) == 4 else ()
    return (*added, *(a.s.decode() for a in node.attribute if a.name == "activation"))


def _origin(nodes: list[_Node]) -> Origin:
    tensors = frozenset(t for node in nodes for t in node.outputs if t)
    return Origin(frozenset(node.name for node in nodes), tensors)


def _name(proto: onnx.ModelProto) -> bool:
    """Name the nodes that have no name; return whether there was one."""
    used = {node.name for node in _all_nodes(proto.graph)}
    found = "" in used
    for node in _all_nodes(proto.graph):
        if not node.name:
            wanted = f"{node.op_type}:{next(filter(None, node.output), '')}"
            count = 1
            while wanted in used:
                count += 1
                wanted = f"{node.op_type}:{next(filter(None, node.output), '')}.{count}"
            node.name = wanted
            used.add(wanted)
    return found


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)
            for inner in attribute.graphs:
                yield from _all_nodes(inner)
        yield node
