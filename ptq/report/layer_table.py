"""What a report knows of each layer, in one row: what ran, how far it is, what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ptq.report.comparison import LayerError
from ptq.report.report import Report
from ptq.runtime.layer import Layer


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A layer with a kernel of its own.

    Attributes:
        number: counts from 1, in the order of the graph.
        name: the node.
        op_type: its operator, with those whose work its kernel does too: ``Conv + Relu``.
        kernel: what runs in onnxruntime.
        integer: whether that computes on integers.
        why: the reason if not.
        tensors: what it makes, as far as both models have it; the last is what others read.
        isolated_db: the SQNR if only this layer is quantized; ``None`` if not measured, or exact.
        accumulated_db: the SQNR of the last tensor, with everything before it quantized too;
            ``None`` likewise.
        clip_share: share of the values of that tensor outside the range of its codes, 0..1.
        float_ms: its time in the float model; ``None`` if not measured.
        quantized_ms: likewise in the quantized model.
    """

    number: int
    name: str
    op_type: str
    kernel: str
    integer: bool
    why: str
    tensors: tuple[str, ...]
    isolated_db: float | None
    accumulated_db: float | None
    clip_share: float | None
    float_ms: float | None
    quantized_ms: float | None


def layer_rows(report: Report) -> tuple[LayerRow, ...]:
    """Return a row for every layer that has a kernel of its own, in the order of the graph."""
    groups = _groups(report.layers)
    errors = _errors(report, groups)
    clipped = {tensor.name: tensor.clip_share for tensor in report.tensors}
    times = _times(report, groups)
    rows = []
    for number, group in enumerate(groups, start=1):
        first = group[0]
        found = errors.get(first.name, [])
        last = found[-1] if found else None
        isolated = [e.isolated_sqnr_db for e in found if e.isolated_sqnr_db is not None]
        float_ms, quantized_ms = times.get(first.name, (None, None))
        rows.append(
            LayerRow(
                number=number,
                name=first.name,
                op_type=" + ".join(layer.op_type for layer in group),
                kernel=first.kernel,
                integer=first.integer,
                why=first.why,
                tensors=tuple(e.tensor for e in found),
                isolated_db=min(isolated, default=None),
                accumulated_db=last.sqnr_db if last is not None else None,
                clip_share=clipped.get(last.tensor, last.clip_share) if last is not None else None,
                float_ms=float_ms,
                quantized_ms=quantized_ms,
            )
        )
    return tuple(rows)


def _groups(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Return the layers with kernels, each with those whose work its kernel does too."""
    groups = {layer.name: [layer] for layer in layers if layer.kernel and not layer.part_of}
    for layer in layers:
        if layer.part_of and layer.part_of in groups:
            groups[layer.part_of].append(layer)
    return list(groups.values())


def _leaders(groups: Iterable[Sequence[Layer]]) -> dict[str, str]:
    """Return the first node of the group of each node."""
    return {layer.name: group[0].name for group in groups for layer in group}


def _errors(report: Report, groups: Iterable[Sequence[Layer]]) -> dict[str, list[LayerError]]:
    """Return the errors of the tensors of each group by its first node, in order."""
    leaders = _leaders(groups)
    found: dict[str, list[LayerError]] = {}
    for error in report.errors:
        name = next((leaders[n] for n in (error.node, *error.nodes) if n in leaders), None)
        if name is not None:
            found.setdefault(name, []).append(error)
    return found


def _times(report: Report, groups: Iterable[Sequence[Layer]]) -> Mapping[str, tuple[float, float]]:
    """Return the times of layers by the name of the first node in each."""
    if report.profile is None:
        return {}
    leader = _leaders(groups)
    times: dict[str, tuple[float, float]] = {}
    for part in report.profile.layers:
        # the profile may know a group by the name of another node in it
        names = (part.name, *(kernel.name for found in part.kernels for kernel in found))
        name = next((leader[n] for n in names if n in leader), None)
        if name is not None:
            before = times.get(name, (0.0, 0.0))
            times[name] = (before[0] + part.ms[0], before[1] + part.ms[1])
    return times


def worst_first(rows: Iterable[LayerRow]) -> list[LayerRow]:
    """Return the rows with an error of their own, that of the largest first.

    Where isolated errors were not measured, the accumulated ones decide.
    """
    rows = list(rows)
    isolated = [(row.isolated_db, row) for row in rows if row.isolated_db is not None]
    accumulated = [(row.accumulated_db, row) for row in rows if row.accumulated_db is not None]
    ranked = isolated or accumulated
    return [row for _, row in sorted(ranked, key=lambda pair: (pair[0], pair[1].number))]
