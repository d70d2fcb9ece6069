"""What a model is made of, and what of it would be or is quantized: as data, and as text."""

from __future__ import annotations

import msgspec

from ptq.graph.describe import Value
from ptq.plan import NodePlan
from ptq.report.layers import coverage_lines
from ptq.report.table import aligned, megabytes
from ptq.runtime.layer import Layer


class OverrideEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What an override matches.

    Attributes:
        override: what it is called.
        changes: what it changes.
        nodes: how many nodes it matches.
        tensors: how many tensors.
    """

    override: str
    changes: dict[str, bool | int | str]
    nodes: int
    tensors: int


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
        overrides: what the overrides match.
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
    overrides: tuple[OverrideEffect, ...] = ()


class QuantizedInspection(msgspec.Struct, frozen=True, kw_only=True):
    """What `ptq inspect` shows of a model that is quantized already.

    Attributes:
        path: the model file.
        size_bytes: with external data.
        opset: version of the default domain.
        inputs: names, types and shapes.
        outputs: the same.
        operators: how many of each type, in the file as it is.
        parameters: how many floating-point numbers its initializers hold.
        codes: how many integers of 8 bits or fewer they hold.
        onnxruntime: the version that the rest holds for.
        layers: what became of every node that works on numbers.
        integer_layers: how many of them run as integer kernels; parts of others are not counted.
        total_layers: of how many.
        ran_integer: integer kernels in the optimized graph, by type.
        ran_float: float operators there, by type.
        conversions: QuantizeLinear and DequantizeLinear there.
    """

    path: str
    size_bytes: int
    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: dict[str, int]
    parameters: int
    codes: int
    onnxruntime: str
    layers: tuple[Layer, ...]
    integer_layers: int
    total_layers: int
    ran_integer: dict[str, int]
    ran_float: dict[str, int]
    conversions: int


def quantized_text(found: QuantizedInspection) -> str:
    """Return what `ptq inspect` prints of a quantized model."""
    rows = [("operator", "nodes", ""), *((op, str(n), "") for op, n in found.operators.items())]
    return "\n".join(
        [
            f"{found.path}: quantized, {megabytes(found.size_bytes)}, opset {found.opset}, "
            f"{found.codes:,} integer and {found.parameters:,} float parameters",
            "",
            *_values(found.inputs, found.outputs),
            "",
            "operators in the file",
            *(f"  {line}" for line in aligned(rows)),
            "",
            f"layers in onnxruntime {found.onnxruntime}",
            *(f"  {line}" for line in aligned(map(_layer, found.layers), words=3)),
            "",
            *coverage_lines(found.layers, found.ran_integer, found.conversions, found.onnxruntime),
        ]
    )


def _layer(layer: Layer) -> tuple[str, str, str, str]:
    fate = "integer" if layer.integer else f"float: {layer.why}"
    if not layer.kernel:
        fate = layer.why
    elif layer.part_of:
        fate = f"{fate.partition(':')[0]}, part of {layer.part_of}"
    return layer.name, layer.op_type, layer.kernel or "-", fate


def inspection_text(found: Inspection) -> str:
    """Return what `ptq inspect` prints of a float model."""
    lines = [
        f"{found.path}: {megabytes(found.size_bytes)}, opset {found.opset}, "
        f"{found.parameters:,} parameters",
        "",
        *_values(found.inputs, found.outputs),
    ]
    if found.prepared:
        lines += ["", "prepared", *(f"  {line}" for line in found.prepared)]
    lines += ["", "operators after preparation"]
    lines += [f"  {line}" for line in aligned(_operators(found))]
    lines += ["", "nodes"]
    lines += [f"  {line}" for line in aligned(_nodes(found), words=2)]
    if found.overrides:
        lines += ["", "overrides"]
        lines += [f"  {line}" for line in aligned(_overrides(found), words=2)]
    integer = sum(n.integer for n in found.nodes)
    lines += [
        "",
        f"{integer} of {len(found.nodes)} nodes would run as integer kernels on {found.target}; "
        f"about {megabytes(found.predicted_bytes)}",
    ]
    return "\n".join(lines)


def _values(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> list[str]:
    return [
        *(f"input   {_value(v)}" for v in inputs),
        *(f"output  {_value(v)}" for v in outputs),
    ]


def _value(value: Value) -> str:
    shape = "?" if value.shape is None else ", ".join(map(str, value.shape))
    return f"{value.name}: {value.dtype} ({shape})"


def _operators(found: Inspection) -> list[tuple[str, str, str]]:
    rows = [("operator", "nodes", "integer")]
    for op_type, count in found.operators.items():
        integer = sum(n.integer for n in found.nodes if n.op_type == op_type)
        rows.append((op_type, str(count), str(integer)))
    return rows


def _overrides(found: Inspection) -> list[tuple[str, str, str]]:
    return [
        (
            effect.override,
            ", ".join(f"{name} = {_plain(value)}" for name, value in effect.changes.items()),
            f"{effect.nodes} nodes, {effect.tensors} tensors",
        )
        for effect in found.overrides
    ]


def _plain(value: bool | int | str) -> str:
    """Return a value as TOML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nodes(found: Inspection) -> list[tuple[str, str, str]]:
    rows = []
    for node in found.nodes:
        fate = "integer" if node.integer else f"float: {node.why}"
        rows.append((node.name, node.op_type, fate))
    return rows
