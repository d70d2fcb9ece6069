"""What each layer's quantization does to the output of the network: as data, and as text."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from ptq.report.decibels import decibels
from ptq.report.names import shortened
from ptq.report.table import aligned
from ptq.search.trials import Damage
from ptq.toml_writer import toml_lines

#: Raised whenever a field changes its meaning or goes away.
SCHEMA = 1

Kind = Literal["layer", "activation", "weight"]

SortKey = Literal["spared", "alone", "isolated", "order"]


class PartDamage(msgspec.Struct, frozen=True, kw_only=True):
    """What quantizing one part of the network does to its output.

    Attributes:
        name: the node of a layer; the tensor of an activation or a weight.
        kind: which of them it is.
        op_type: the layer's operator, or that of the layer that makes or has the tensor; ``input``
            for an activation that no layer makes.
        alone: the damage of quantizing just that.
        without: the damage of quantizing everything but that.
        spared: by how much leaving it in float lowers the noise of the output, as a share of what
            it is with everything quantized; below 0 if that makes it worse.
        isolated: noise at the layer's own output, over the signal there, if only it is quantized;
            ``None`` for tensors and where `ptq compare` does not tell.
        share: that noise over the noise of everything before it too, at the same place: how much of
            it the layer adds.
        gain: noise at the network's output over that at the layer's own, ``alone / isolated``.
    """

    name: str
    kind: Kind
    op_type: str
    alone: Damage
    without: Damage
    spared: float
    isolated: float | None = None
    share: float | None = None
    gain: float | None = None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """How well a cheap figure orders the layers.

    Attributes:
        proxy: the figure: ``isolated`` or ``share``, as in `PartDamage`.
        layers: how many layers have it.
        alone: Spearman's rank correlation with the measured damage of the layer alone; ``None``
            where either is the same for all.
        spared: that with the noise spared by leaving it in float.
    """

    proxy: str
    layers: int
    alone: float | None
    spared: float | None


class KeptFloat(msgspec.Struct, frozen=True, kw_only=True):
    """Layers to leave in float, and what that was measured to give.

    Attributes:
        nodes: the layers.
        followed: how many others have to stay in float with them.
        predicted: noise of the output by the sum of single damages; 0 where that is more than all.
        measured: the damage with all of them in float.
        reached: whether that is as good as was asked for.
    """

    nodes: tuple[str, ...]
    followed: int
    predicted: float
    measured: Damage
    reached: bool


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Which layers of a model do not bear quantization.

    Attributes:
        model: path of the float model.
        data: what it was measured on.
        samples: how many samples of it.
        quantized: the damage with everything quantized.
        added_up: the sum of the noise of all layers alone over that: 1 where noise adds up.
        layers: each layer, in the order of the model.
        tensors: each activation and weight, if they were asked for.
        rankings: how well cheap figures order the layers.
        kept: layers to leave in float, if that was asked for.
        trials: how many combinations were measured.
        resumed: how many of them an earlier run had measured.
        notices: what the user should know.
        schema: version of this format.
    """

    model: str
    data: str
    samples: int
    quantized: Damage
    added_up: float
    layers: tuple[PartDamage, ...]
    tensors: tuple[PartDamage, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    kept: KeptFloat | None = None
    trials: int = 0
    resumed: int = 0
    notices: tuple[str, ...] = ()
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def ranked(parts: Sequence[PartDamage], by: SortKey = "spared") -> list[PartDamage]:
    """Return the parts, the worst first; what has no such figure comes last."""
    if by == "order":
        return list(parts)

    def key(part: PartDamage) -> float:
        if by == "alone":
            return part.alone.noise
        figure = part.isolated if by == "isolated" else part.spared
        return -math.inf if figure is None else figure

    return sorted(parts, key=key, reverse=True)


def sensitivity_text(found: Sensitivity, *, top: int = 20, by: SortKey = "spared") -> str:
    """Return what `ptq sensitivity` prints.

    Args:
        found: what was measured.
        top: how many layers to list, and how many tensors; 0 for all.
        by: what to sort by; see `ranked`.
    """
    lines = _table(found, found.layers, "layer", top, by)
    if found.tensors:
        lines += ["", *_table(found, found.tensors, "tensor", top, by)]
    lines += ["", *_summary(found)]
    if found.kept is not None:
        lines += ["", *_kept(found, found.kept)]
    return "\n".join(lines)


def recipe_text(kept: KeptFloat) -> str:
    """Return the part of a recipe that leaves layers in float."""
    tables = (
        "\n".join(
            ["[[quantize.override]]", *toml_lines({"match": glob.escape(node), "float": True})]
        )
        for node in kept.nodes
    )
    return "\n\n".join(tables)


def _table(
    found: Sensitivity, parts: Sequence[PartDamage], what: str, top: int, by: SortKey
) -> list[str]:
    shown = ranked(parts, by)[: top or None]
    classes = found.quantized.kl is not None
    heading = ("operator", "alone", "in float", "spared", *(("KL alone",) if classes else ()))
    lines = aligned([(*heading, "isolated", what), *(_row(found, part, classes) for part in shown)])
    if len(shown) < len(parts):
        lines.append(f"{len(parts) - len(shown)} more {what}s; --top 0 shows all")
    return lines


def _row(found: Sensitivity, part: PartDamage, classes: bool) -> tuple[str, ...]:
    kl = (f"{part.alone.kl or 0.0:.2g}",) if classes else ()
    isolated = "" if part.isolated is None else decibels(Damage(noise=part.isolated).sqnr_db)
    gained = part.without.sqnr_db - found.quantized.sqnr_db if found.quantized.noise else 0.0
    mark = "" if part.kind == "layer" else f"  ({part.kind})"
    return (
        part.op_type,
        decibels(part.alone.sqnr_db),
        f"{gained:+.2f} dB",
        f"{part.spared:.1%}",
        *kl,
        isolated,
        shortened(part.name) + mark,
    )


def _summary(found: Sensitivity) -> list[str]:
    quantized = found.quantized
    lines = [
        f"all {len(found.layers)} layers quantized: {decibels(quantized.sqnr_db)}"
        + (f", KL {quantized.kl:.3g} nats" if quantized.kl is not None else "")
        + f", on {found.samples} samples; their noise alone adds up to {found.added_up:.2f} of that"
    ]
    lines += [
        f"one pass with '{ranking.proxy}' orders {ranking.layers} layers like the measurement to "
        f"{_correlation(ranking.alone)} (alone), {_correlation(ranking.spared)} (spared)"
        for ranking in found.rankings
    ]
    measured = f"{found.trials} combinations measured"
    lines.append(measured + (f", {found.resumed} of them before" if found.resumed else ""))
    return lines


def _kept(found: Sensitivity, kept: KeptFloat) -> list[str]:
    more = f" and {kept.followed} that follow them" if kept.followed else ""
    # single damages may add up to more than there is
    left = Damage(noise=kept.predicted).sqnr_db
    predicted = decibels(left) if kept.predicted > 0 else "nothing left"
    lines = [
        f"with {len(kept.nodes)} layers in float{more}: {decibels(kept.measured.sqnr_db)} measured,"
        f" {predicted} by adding up; {decibels(found.quantized.sqnr_db)} without"
    ]
    if not kept.reached:
        lines.append("that is less than was asked for: the other layers alone do more")
    return [*lines, "", recipe_text(kept)] if kept.nodes else lines


def _correlation(value: float | None) -> str:
    return "nothing to compare" if value is None else f"{value:.2f}"
