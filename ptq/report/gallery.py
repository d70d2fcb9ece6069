"""The histograms of a report as pictures with what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ptq.report.charts import Reach, histogram, histogram_domain
from ptq.report.histograms import ActivationHistogram, Bins, WeightHistogram
from ptq.report.layer_table import LayerRow
from ptq.report.names import shortened
from ptq.report.report import Report


@dataclass(frozen=True, slots=True)
class View:
    """A histogram with what is written around it.

    Attributes:
        name: the tensor.
        picture: the histogram as SVG.
        lowest: the value at its left end.
        highest: the value at its right end.
        caption: what is to be said of it.
    """

    name: str
    picture: Markup
    lowest: str
    highest: str
    caption: Markup

    @classmethod
    def of(cls, name: str, bins: Bins, reach: Reach, said: Iterable[str]) -> View:
        """Draw a histogram and say what codes cover of it."""
        lowest, highest = (f"{end:.3g}" for end in histogram_domain(bins, reach))
        bold = Markup("<b>{}</b>").format(f"{reach.lo:.3g} to {reach.hi:.3g}")
        zeros = [f"{bins.zeros / bins.total:.0%} zeros"] if bins.zeros * 100 > bins.total else []
        caption = Markup(" · ").join([bold, *said, *zeros])
        what = f"histogram of {shortened(name)}"
        return cls(name, histogram(bins, reach, what), lowest, highest, caption)


def activation_views(report: Report, rows: Sequence[LayerRow]) -> list[View]:
    """Return the histograms of activations.

    Args:
        report: what has them.
        rows: the layers, in the order that their tensors are to have; other tensors come last.
    """
    found = report.histograms.activations if report.histograms is not None else ()
    made = {tensor: row for row in reversed(rows) for tensor in row.tensors}
    place = {name: i for i, name in enumerate(reversed(made))}
    ranked = sorted(found, key=lambda h: place.get(h.name, len(place)))
    return [_activation(h, made.get(h.name)) for h in ranked]


def _activation(found: ActivationHistogram, row: LayerRow | None) -> View:
    said = [_clipped(found.clip_share), *_layer_said(row)]
    return View.of(found.name, found.bins, Reach(found.lo, found.hi), said)


def weight_views(report: Report, rows: Sequence[LayerRow]) -> list[View]:
    """Return the histograms of weights, in the order of the layers that read them."""
    found = report.histograms.weights if report.histograms is not None else ()
    readers = {row.name: row for row in rows}
    place = {name: i for i, name in enumerate(readers)}
    ranked = sorted(found, key=lambda h: place.get(h.node, len(place)))
    return [_weight(h, readers.get(h.node)) for h in ranked]


def _weight(found: WeightHistogram, row: LayerRow | None) -> View:
    reach = Reach(found.lo, found.hi)
    if found.scales > 1:
        reach = Reach(found.lo, found.hi, found.least_lo, found.least_hi)
    said = [f"{found.bits} bits", f"{found.scales} scale{'s' if found.scales > 1 else ''}"]
    said += ["symmetric"] if found.symmetric else ["asymmetric"]
    said += [_clipped(found.clip_share)] if found.clip_share else []
    return View.of(found.name, found.bins, reach, [*said, *_layer_said(row)])


def _clipped(share: float) -> str:
    if share == 0:
        return "nothing clipped"
    return f"{share:.3%} clipped" if share >= 0.5e-5 else "less than 0.001% clipped"


def _layer_said(row: LayerRow | None) -> list[str]:
    if row is None:
        return []
    isolated = f", isolated {row.isolated_db:.1f} dB" if row.isolated_db is not None else ""
    return [f"layer #{row.number}{isolated}"]
