"""What a comparison layer by layer found: as data, and as text."""

from __future__ import annotations

import glob
import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from ptq.report.decibels import decibels
from ptq.report.names import shortened
from ptq.report.table import aligned

#: Raised whenever a field changes its meaning or goes away.
SCHEMA = 1

#: Two ways of computing the same in float32 differ by about 140 dB: that is no fault of any layer.
_ROUNDING_DB = 110.0

#: How many layers the last line of the text proposes to keep in float.
_PROPOSED = 3

SortKey = Literal["isolated", "accumulated", "clip", "shift", "order"]


class LayerError(msgspec.Struct, frozen=True, kw_only=True):
    """How far one tensor of the quantized model is from the float model's.

    Attributes:
        tensor: its name in the float model.
        node: the node of the float model that the layer is there for: of those that make the
            tensor from others that are compared, the one with a weight, or else the last; empty
            for an input.
        op_type: that node's operator, ``input`` for an input.
        nodes: all of those nodes; a Conv and the Relu that it absorbs make one tensor.
        at_fault: the nodes to keep in float to be rid of the isolated error: ``node``, or the
            readers of a float tensor that is quantized for them; none where nothing is quantized.
        output: whether the model puts the tensor out.
        quantized: whether the quantized model holds it as codes.
        sqnr_db: accumulated error: everything before it is quantized too; ``None`` if the tensors
            are equal, which is no number of decibels.
        cosine: accumulated, over all values.
        max_abs: accumulated, the largest difference.
        mean_shift: accumulated, the mean of the difference (quantized minus float), in the
            tensor's own unit: a bias that later layers do not average out.
        rms: root mean square of the float tensor, to compare ``mean_shift`` and ``max_abs`` with.
        clip_share: share of the float values more than half a step outside the range of the codes,
            0..1; ``None`` if it is not quantized, or has a scale for each channel.
        nonfinite: how many values are NaN or infinite in the quantized model and finite in the
            float one; the other figures leave them out.
        isolated_sqnr_db: error if only this layer is quantized, its inputs coming from the float
            model; ``None`` if equal or not measured.
        isolated_cosine: likewise; ``None`` if not measured.
    """

    tensor: str
    node: str
    op_type: str
    quantized: bool
    sqnr_db: float | None
    cosine: float
    max_abs: float
    mean_shift: float
    rms: float
    clip_share: float | None = None
    isolated_sqnr_db: float | None = None
    isolated_cosine: float | None = None
    nodes: tuple[str, ...] = ()
    at_fault: tuple[str, ...] = ()
    output: bool = False
    nonfinite: int = 0

    @property
    def relative_shift(self) -> float:
        """The mean of the difference as a share of the root mean square; 0 where both are 0."""
        if self.rms == 0:
            return math.copysign(math.inf, self.mean_shift) if self.mean_shift else 0.0
        return self.mean_shift / self.rms


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A quantized model beside the float one, layer by layer.

    Attributes:
        reference: path of the float model.
        quantized: path of the quantized model.
        samples: how many feeds were compared.
        isolated: whether isolated errors were measured.
        layers: one for each tensor that both models have, in the order in which they are computed.
        unmatched: tensors of the float model that the quantized one has no counterpart of.
        notices: what the user should know.
        data: where the inputs come from, as the user gave it; empty if they were there already.
        schema: version of this format.
    """

    reference: str
    quantized: str
    samples: int
    isolated: bool
    layers: tuple[LayerError, ...]
    unmatched: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    data: str = ""
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """Return the comparison as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def ranked(found: Comparison, by: SortKey = "isolated") -> list[LayerError]:
    """Return the layers, the worst first; those with values that are not finite before all others.

    Args:
        found: the comparison.
        by: error of the layer alone, accumulated error, share of clipped values, mean shift
            relative to the tensor's size, or the order of the model.
    """
    if by == "order":
        return list(found.layers)
    if by == "isolated" and not found.isolated:
        by = "accumulated"
    keys: dict[str, Callable[[LayerError], float]] = {
        "isolated": lambda layer: _least(layer.isolated_sqnr_db),
        "accumulated": lambda layer: _least(layer.sqnr_db),
        "clip": lambda layer: -(layer.clip_share or 0.0),
        "shift": lambda layer: -abs(layer.relative_shift),
    }
    return sorted(found.layers, key=lambda layer: (not layer.nonfinite, keys[by](layer)))


def proposed(found: Comparison) -> tuple[str, ...]:
    """Return the nodes to try in float first: those of the layers with the largest error alone."""
    layers = [layer for layer in ranked(found) if _least(_alone(found, layer)) < _ROUNDING_DB]
    nodes = [node for layer in layers for node in layer.at_fault]
    return tuple(dict.fromkeys(nodes))[:_PROPOSED]


def excluding(nodes: Iterable[str]) -> str:
    """Return the options of `ptq quantize` that keep these nodes in float."""
    # a name may hold what a glob would take for a pattern, or the shell for its own
    return " ".join(f"--exclude {shlex.quote(glob.escape(node))}" for node in nodes)


def comparison_text(found: Comparison, *, top: int = 20, by: SortKey = "isolated") -> str:
    """Return what `ptq compare` prints.

    Args:
        found: what was measured.
        top: how many layers to list, 0 for all.
        by: what to sort by; see `ranked`.
    """
    layers = ranked(found, by)
    shown = layers[:top] if top else layers
    lines = [*aligned([_heading(found), *(_row(found, layer) for layer in shown)]), ""]
    if len(shown) < len(layers):
        lines.append(f"{len(layers) - len(shown)} more layers; --top 0 shows all")
    lines += [_matched(found), *_advice(found)]
    return "\n".join(lines)


def _heading(found: Comparison) -> tuple[str, ...]:
    alone = ("isolated",) if found.isolated else ()
    return ("operator", *alone, "accumulated", "cosine", "shift", "clipped", "layer")


def _row(found: Comparison, layer: LayerError) -> tuple[str, ...]:
    alone = (decibels(layer.isolated_sqnr_db),) if found.isolated else ()
    clipped = "" if layer.clip_share is None else _percent(layer.clip_share)
    marks = ["output"] if layer.output else []
    if layer.nonfinite:
        marks.append(f"{layer.nonfinite} values NaN or infinite")
    mark = f"  ({', '.join(marks)})" if marks else ""
    return (
        layer.op_type,
        *alone,
        decibels(layer.sqnr_db),
        f"{layer.cosine:.5f}",
        "" if layer.mean_shift == 0 else f"{layer.relative_shift:+.2%}",
        clipped,
        shortened(layer.node or layer.tensor) + mark,
    )


def _matched(found: Comparison) -> str:
    codes = sum(layer.quantized for layer in found.layers)
    total = len(found.layers) + len(found.unmatched)
    return (
        f"{len(found.layers)} of {total} tensors of the float model are in the quantized one, "
        f"{codes} as integers; compared on {found.samples} samples"
    )


def _advice(found: Comparison) -> Sequence[str]:
    nodes = proposed(found)
    if not nodes:
        return ()
    return (f"next: quantize again with the worst layers in float, as a try: {excluding(nodes)}",)


def _alone(found: Comparison, layer: LayerError) -> float | None:
    return layer.isolated_sqnr_db if found.isolated else layer.sqnr_db


def _least(decibels: float | None) -> float:
    """Return a number to sort by: equal tensors come last."""
    return math.inf if decibels is None else decibels


def _percent(share: float) -> str:
    if share == 0:
        return "0"
    return "<0.01%" if share < 1e-4 else f"{share:.2%}"
