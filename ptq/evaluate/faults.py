"""Which layers have to do with a figure that was missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ptq.report.check import Fault
from ptq.report.comparison import Comparison, LayerError, excluding
from ptq.report.decibels import decibels
from ptq.runtime.layer import Layer

#: How many layers are named, and how many of them are proposed to be kept in float.
_NAMED, _PROPOSED = 5, 3

#: A layer is named for having grown if its error did by more than this, in dB.
_GROWN_DB = 1.0

#: Less clipping than this is what any method does on purpose; of more than that, another method is
#: worth a try.
_CLIPPED, _CLIPPED_MUCH = 0.001, 0.01


def layer_errors(found: Comparison) -> dict[str, float | None]:
    """Return the error that each layer has by itself, by its tensor, in dB."""
    return {layer.tensor: layer.isolated_sqnr_db for layer in _isolated(found)}


def worst_layers(found: Comparison) -> tuple[Fault, ...]:
    """Return the layers of the largest error, the worst first.

    It is the error that they have by themselves, or if that is not known of any, as of a model
    that another tool made, the one that has accumulated there.
    """
    layers = _isolated(found)
    errors = [(layer, layer.isolated_sqnr_db) for layer in layers]
    what = "by itself"
    if not layers:
        errors = [(layer, layer.sqnr_db) for layer in found.layers]
        what = "accumulated"
    known = [(sqnr_db, layer) for layer, sqnr_db in errors if sqnr_db is not None]
    known.sort(key=lambda entry: entry[0])
    return tuple(
        _fault(layer, sqnr_db, f"{_decibels(sqnr_db)} {what}") for sqnr_db, layer in known[:_NAMED]
    )


def grown_layers(found: Comparison, was: Mapping[str, float | None]) -> tuple[Fault, ...]:
    """Return the layers whose error grew most over a baseline's, by more than a decibel.

    What counts is the power of the error, so that 40 dB to 10 dB is more than 70 dB to 30 dB.

    Args:
        found: of this run.
        was: the errors in the baseline, as `layer_errors` gives them for the same samples.
    """
    grown = []
    for layer in _isolated(found):
        now = layer.isolated_sqnr_db
        if now is None or layer.tensor not in was:
            continue
        before = was[layer.tensor]
        if before is None or before - now > _GROWN_DB:
            grown.append((_noise(now) - _noise(before), now, layer, before))
    grown.sort(key=lambda entry: -entry[0])
    return tuple(
        _fault(layer, now, f"{_decibels(now)} by itself, was {_decibels(before)}", before)
        for _, now, layer, before in grown[:_NAMED]
    )


def float_layers(layers: Sequence[Layer]) -> tuple[Fault, ...]:
    """Return the first layers that run in float, with the reason."""
    floats = [layer for layer in layers if layer.kernel and not (layer.part_of or layer.integer)]
    return tuple(
        Fault(node=layer.name, op_type=layer.op_type, tensor="", why=layer.why)
        for layer in floats[:_NAMED]
    )


def _isolated(found: Comparison) -> list[LayerError]:
    return [layer for layer in found.layers if layer.isolated_cosine is not None]


def advice(faults: Sequence[Fault]) -> str:
    """Return how to quantize again; empty if no layer is known to be at fault for accuracy."""
    nodes = list(dict.fromkeys(node for fault in faults for node in fault.at_fault))[:_PROPOSED]
    if not nodes:
        return ""
    again = f"quantize again with the worst layers in float: {excluding(nodes)}"
    if max(fault.clip_share or 0.0 for fault in faults) < _CLIPPED_MUCH:
        return again
    return f"these layers clip much of their values: try another --calib, or {again}"


def _noise(sqnr_db: float | None) -> float:
    """Return the power of the error as a part of the signal's."""
    return 0.0 if sqnr_db is None else float(10 ** (-sqnr_db / 10))


def _decibels(value: float | None) -> str:
    return decibels(value, equal="exact", no_signal="noise without signal")


def _fault(layer: LayerError, now: float, why: str, was_db: float | None = None) -> Fault:
    if layer.clip_share is not None and layer.clip_share >= _CLIPPED:
        why += f"; clips {layer.clip_share:.1%} of its values"
    return Fault(
        node=layer.node,
        op_type=layer.op_type,
        tensor=layer.tensor,
        why=why,
        sqnr_db=now,
        was_db=was_db,
        clip_share=layer.clip_share,
        at_fault=layer.at_fault,
    )
