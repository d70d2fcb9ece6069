"""Which nodes of the float graph make a tensor that is compared, and which are at fault for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ptq.graph.held import Held, is_dequantizer, values_by_name
from ptq.graph.passes.edit import subgraphs
from ptq.graph.types import Model

#: Operators with a weight: of several that make one tensor, the layer is called after such a one.
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "LSTM", "GRU", "RNN"})


@dataclass(frozen=True, slots=True)
class Makers:
    """The nodes behind one tensor, by name.

    Attributes:
        main: the node that they are there for; empty for an input of the model.
        op_type: its operator, or ``input``.
        nodes: all that make the tensor from others that are held.
        at_fault: the nodes to keep in float to be rid of the error of this layer alone.
        output: whether the tensor is an output of the model.
    """

    main: str
    op_type: str
    nodes: tuple[str, ...]
    at_fault: tuple[str, ...]
    output: bool


def makers(reference: Model, quantized: Model, held: Sequence[Held]) -> dict[str, Makers]:
    """Return what makes each tensor that is held."""
    values, others = values_by_name(reference.graph), values_by_name(quantized.graph)
    outputs = {v.name for v in reference.graph.outputs}
    names = {h.tensor for h in held}
    found = {}
    for h in held:
        nodes = _nodes(values[h.tensor], names)
        weighted = [node for node in nodes if node.op_type in _WEIGHTED]
        main = next(reversed(weighted or nodes), None)
        fault = [] if main is None else [main]
        if _quantized_for_readers(h, others):
            fault = [node for node, _ in values[h.tensor].uses()]
        elif h.params is None and not weighted:
            fault = []  # it only passes on what it reads
        found[h.tensor] = Makers(
            main="" if main is None else main.name or "",
            op_type="input" if main is None else main.op_type,
            nodes=_names(nodes),
            at_fault=_names(fault),
            output=h.tensor in outputs,
        )
    return found


def inner_nodes(model: Model) -> int:
    """Return how many nodes are in the bodies of If, Loop and Scan."""
    return sum(1 for node in model.graph for body in subgraphs(node) for _ in body.all_nodes())


def _nodes(value: ir.Value, held: Collection[str]) -> list[ir.Node]:
    """Return the nodes that make a tensor from those that are held; its own maker comes last."""
    nodes: dict[int, ir.Node] = {}
    pending = [value]
    while pending:
        maker = pending.pop().producer()
        if maker is None or id(maker) in nodes:
            continue
        nodes[id(maker)] = maker
        pending += [v for v in maker.inputs if v is not None and _inner(v) and v.name not in held]
    return list(reversed(nodes.values()))


def _inner(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _quantized_for_readers(held: Held, values: Mapping[str, ir.Value]) -> bool:
    """Whether a tensor comes from a float operator, and is quantized for the operators after it."""
    if held.params is None or held.cut == held.value:
        return False
    maker = values[held.cut].producer()
    read = () if maker is None else maker.inputs
    return not any(v is not None and is_dequantizer(v.producer()) for v in read)


def _names(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.name or "" for node in nodes))
