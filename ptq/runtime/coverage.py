"""Ask onnxruntime which layers it really runs as integer kernels.

A model full of QuantizeLinear may run entirely in float: the runtime has to recognise each
pattern. So the graph is read back as the runtime rewrote it, and every node is looked up there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from ptq.errors import ModelError
from ptq.runtime.kinds import Kinds, Work, walk
from ptq.runtime.layer import DROPPED, Layer
from ptq.runtime.origins import Kernel, Origins, read_proto
from ptq.runtime.reasons import MOVES, why_float
from ptq.runtime.session import open_session

#: Of the nodes that one kernel merges, the one that it is named after if no name tells.
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "LSTM", "MatMul"})


@dataclass(frozen=True, slots=True)
class Coverage:
    """What onnxruntime made of a quantized model; the bodies of If and Loop count too.

    Attributes:
        integer: operators that run as integer kernels, by type.
        floating: operators that run on floats, by type. Those that only compute shapes and
            positions are in neither.
        conversions: QuantizeLinear and DequantizeLinear that are left.
        unfused: names of the sites that should be integer and run in float.
        layers: what became of every node of the file that works on numbers, in its order.
    """

    integer: Counter[str]
    floating: Counter[str]
    conversions: int
    unfused: tuple[str, ...]
    layers: tuple[Layer, ...] = ()


def measure_coverage(model: Path, sites: Sequence[str] = ()) -> Coverage:
    """Return what onnxruntime makes of the model at its full optimization.

    Args:
        model: a quantized model file.
        sites: names of the nodes that are meant to run as integer kernels.

    Raises:
        VerificationError: onnxruntime does not load the model.
    """
    with tempfile.TemporaryDirectory(prefix="ptq-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(model, optimized=optimized)
        # weights in other files are not needed here: only what the graph looks like
        after = _graph(read_proto(optimized))
    proto = read_proto(model)
    origins = Origins(proto)  # it names the nodes that have no name
    return _compare(_graph(proto), after, origins, frozenset(sites))


def _graph(proto: onnx.ModelProto) -> ir.Graph:
    try:
        graph = ir.from_proto(proto).graph
        graph.sort()
    except (ir.serde.SerdeError, ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"the graph cannot be read: {error}") from error
    return graph


@dataclass(frozen=True, slots=True, eq=False)
class _Kernel:
    """A node of the optimized graph: its type, what it does, and whose work that is."""

    op_type: str
    work: Work
    names: frozenset[str]


def _compare(
    before: ir.Graph, after: ir.Graph, origins: Origins, sites: frozenset[str]
) -> Coverage:
    kernels = _kernels(after, origins)
    counts = {w: Counter(k.op_type for k in kernels if k.work == w) for w in ("integer", "float")}
    layers = tuple(_layers(before, kernels))
    unfused = (
        layer.name
        for layer in layers
        # of a move that went into another operator nothing is left that could be slow
        if layer.name in sites
        and layer.kernel
        and not layer.integer
        and not (layer.op_type in MOVES and layer.part_of)
    )
    return Coverage(
        integer=counts["integer"],
        floating=counts["float"],
        conversions=sum(k.work == "conversion" for k in kernels),
        unfused=tuple(unfused),
        layers=layers,
    )


def _kernels(graph: ir.Graph, origins: Origins) -> list[_Kernel]:
    kinds, nodes = Kinds(graph), list(walk(graph))
    listed = [
        Kernel(n.name or "", n.op_type, tuple(v.name or "" for v in n.outputs)) for n in nodes
    ]
    return [
        _Kernel(node.op_type, kinds.work(node), origin.nodes)
        for node, origin in zip(nodes, origins.of(listed), strict=True)
    ]


def _layers(graph: ir.Graph, kernels: list[_Kernel]) -> list[Layer]:
    kinds, owner = Kinds(graph), dict[str, _Kernel]()
    for kernel in kernels:
        for name in kernel.names:
            owner.setdefault(name, kernel)
    nodes = {n.name or "": n for n in walk(graph) if kinds.work(n) in ("integer", "float")}
    parts: dict[int, list[ir.Node]] = {}
    for name, node in nodes.items():
        if name in owner:
            parts.setdefault(id(owner[name]), []).append(node)
    constant = _constant_nodes(graph)
    layers = []
    for name, node in nodes.items():
        ran = owner.get(name)
        main = node if ran is None else _main(ran.op_type, parts[id(ran)])
        folded = main is not node and name in constant
        layers.append(_layer(node, None if folded else ran, main))
    return layers


def _layer(node: ir.Node, kernel: _Kernel | None, main: ir.Node) -> Layer:
    """Return the layer of a node, given its kernel and the node that this kernel is there for."""
    name, op_type = node.name or "", node.op_type
    if kernel is None or kernel.work in ("conversion", "neither"):
        why = DROPPED
        if kernel is not None and kernel.work == "conversion":
            why = f"{kernel.op_type} does it: the codes end where it would clip"
        return Layer(name=name, op_type=op_type, kernel="", integer=False, why=why)
    integer = kernel.work == "integer"
    return Layer(
        name=name,
        op_type=op_type,
        kernel=kernel.op_type,
        integer=integer,
        why="" if integer else why_float(main, kernel.op_type),
        part_of="" if main is node else main.name or "",
    )


def _constant_nodes(graph: ir.Graph) -> frozenset[str]:
    """Return the nodes that compute the same in every run."""
    nodes, made = set[str](), set[int]()
    for node in walk(graph):
        if all(v is None or v.is_initializer() or id(v) in made for v in node.inputs):
            nodes.add(node.name or "")
            made.update(id(v) for v in node.outputs)
    return frozenset(nodes)


def _main(kernel: str, parts: list[ir.Node]) -> ir.Node:
    """Return the node that a kernel is there for: a Conv and not the Relu merged into it."""
    linear = [node for node in parts if node.op_type.removesuffix("Integer") in _LINEAR]
    named = [node for node in linear or parts if node.op_type in kernel]
    return max(named or linear[:1] or parts[-1:], key=lambda node: len(node.op_type))
