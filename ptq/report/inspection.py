"""What a model is made of and what of it would be quantized: as data, and as text."""

from __future__ import annotations

import msgspec

from ptq.graph.describe import Value
from ptq.plan import NodePlan
from ptq.report.table import aligned, megabytes


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What `ptq inspect` shows.

    Attributes:
        path: the model file.
        size_bytes: with external data.
        opset: version of the default domain, in the file.
        inputs: names, types and shapes.
        outputs: the same.
        operators: how many of each type, after preparation.
        parameters: how many numbers the weights have.
        prepared: what the prepare passes did.
        nodes: what would become of every node, with the reason.
        predicted_bytes: about how large the quantized file would be.
        target: the target that this holds for.
    """

    path: str
    size_bytes: int
    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: dict[str, int]
    parameters: int
    prepared: tuple[str, ...]
    nodes: tuple[NodePlan, ...]
    predicted_bytes: int
    target: str


def inspection_text(found: Inspection) -> str:
    """Return what `ptq inspect` prints."""
    lines = [
        f"{found.path}: {megabytes(found.size_bytes)}, opset {found.opset}, "
        f"{found.parameters:,} parameters",
        "",
        *(f"input   {_value(v)}" for v in found.inputs),
        *(f"output  {_value(v)}" for v in found.outputs),
    ]
    if found.prepared:
        lines += ["", "prepared", *(f"  {line}" for line in found.prepared)]
    lines += ["", "operators after preparation"]
    lines += [f"  {line}" for line in aligned(_operators(found))]
    lines += ["", "nodes"]
    lines += [f"  {line}" for line in aligned(_nodes(found), words=2)]
    integer = sum(n.integer for n in found.nodes)
    lines += [
        "",
        f"{integer} of {len(found.nodes)} nodes would run as integer kernels on {found.target}; "
        f"about {megabytes(found.predicted_bytes)}",
    ]
    return "\n".join(lines)


def _value(value: Value) -> str:
    shape = "?" if value.shape is None else ", ".join(map(str, value.shape))
    return f"{value.name}: {value.dtype} ({shape})"


def _operators(found: Inspection) -> list[tuple[str, str, str]]:
    rows = [("operator", "nodes", "integer")]
    for op_type, count in found.operators.items():
        integer = sum(n.integer for n in found.nodes if n.op_type == op_type)
        rows.append((op_type, str(count), str(integer)))
    return rows


def _nodes(found: Inspection) -> list[tuple[str, str, str]]:
    rows = []
    for node in found.nodes:
        fate = "integer" if node.integer else f"float: {node.why}"
        rows.append((node.name, node.op_type, fate))
    return rows
