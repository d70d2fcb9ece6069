"""The report as one HTML file: it loads nothing, and shows names from models as what they are."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from ptq.report.charts import ErrorPoint, error_chart, pair_of_bars
from ptq.report.decibels import NO_SIGNAL_DB
from ptq.report.gallery import activation_views, weight_views
from ptq.report.layer_table import LayerRow, layer_rows, worst_first
from ptq.report.names import LONGEST, shortened, visible
from ptq.report.placement import placement_line
from ptq.report.profile import BenchedLayer, Profile, kinds, threads_text
from ptq.report.reasons import reasons_of
from ptq.report.report import Report
from ptq.report.settings import settings_text
from ptq.report.text import summary_rows
from ptq.report.verdict import headlines, missing_parts, verdict
from ptq.report.widths import quantized_title
from ptq.runtime.layer import count_layers

#: How many layers the chart of times shows, and how many are named as the worst.
_TIMES_SHOWN, _WORST = 24, 5

#: An option of the command line, in a sentence that is escaped already.
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*[a-z])")

#: How many histograms are open; the others unfold.
_SHOWN_FIRST = 24


def html_page(report: Report) -> str:
    """Return a report as a page: one file without scripts or images from elsewhere."""
    rows = layer_rows(report)
    worst = worst_first(rows)
    known = {row.number for row in worst}
    ranked = [*worst, *(row for row in rows if row.number not in known)]
    points = [
        ErrorPoint(row.number, _label(row), row.isolated_db, row.accumulated_db) for row in rows
    ]
    integer, total = count_layers(report.layers)
    profile = report.profile
    most = max((max(layer.ms) for layer in profile.layers), default=0.0) if profile else 0.0
    listed, rest = _times(profile)
    script = _asset("page.js")
    return _template().render(
        report=report,
        title=quantized_title(report),
        model=PurePath(report.input.path).name,
        verdict=verdict(report),
        cards=headlines(report),
        scheme={"static": "static scales", "dynamic": "dynamic scales"}.get(
            report.scheme, "weights only"
        ),
        coverage=f"{integer} of {total} layers run as integer kernels",
        summary=summary_rows(report),
        missing=missing_parts(report),
        error_chart=error_chart(points),
        worst=[row for row in worst[:_WORST] if row.isolated_db is not None],
        times=[_Time.of(layer, most) for layer in listed],
        more_times=_Rest.of(rest) if rest else None,
        total_ms=profile.total_ms if profile else (0.0, 0.0),
        threads=threads_text(profile.threads) if profile else "",
        rows=rows,
        ranked=bool(worst),
        activations=activation_views(report, ranked),
        weights=weight_views(report, ranked),
        placement=_placement(report),
        candidates=report.placement.candidates if report.placement else (),
        reasons=reasons_of(report.float_nodes),
        special=_special(report),
        settings=settings_text(report.config),
        facts=_facts(report),
        css=Markup(_asset("page.css")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _label(row: LayerRow) -> str:
    return f"{shortened(row.name)} ({shortened(row.op_type)})"


@cache
def _asset(name: str) -> str:
    return files("ptq.report").joinpath(name).read_text(encoding="utf-8").strip()


@cache
def _template() -> Template:
    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters.update(shown=visible, short=shortened, prose=_prose)
    engine.globals.update(longest=LONGEST, shown_first=_SHOWN_FIRST)
    engine.globals.update(counts=_counts, change=_change, no_signal=NO_SIGNAL_DB)
    return engine.from_string(_asset("page.html.j2"))


def _prose(text: str) -> Markup:
    """Return a sentence in which options are not broken at their dashes."""
    return Markup(_OPTION.sub(r'<code class="option">\1</code>', str(escape(visible(text)))))


# -- times ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Time:
    """A row of the chart of times."""

    name: str
    kernels: str
    bars: Markup
    before: float
    after: float

    @classmethod
    def of(cls, layer: BenchedLayer, most: float) -> _Time:
        before, after = layer.ms
        ran = [kinds(found) for found in layer.kernels]
        kernels = ran[0] if ran[0] == ran[1] else f"{ran[0]} → {ran[1]}"
        bars = pair_of_bars(before, after, most)
        return cls(layer.name, shortened(kernels), bars, before, after)


@dataclass(frozen=True, slots=True)
class _Rest:
    """The layers that are not listed."""

    count: int
    before: float
    after: float

    @classmethod
    def of(cls, layers: Sequence[BenchedLayer]) -> _Rest:
        return cls(len(layers), *(sum(layer.ms[i] for layer in layers) for i in (0, 1)))


def _change(row: _Time | _Rest) -> str:
    # a loss of nothing has no sign
    return f"{round(row.after - row.before, 3) + 0.0:+.3f}"


def _times(profile: Profile | None) -> tuple[list[BenchedLayer], list[BenchedLayer]]:
    """Return the layers that cost most, those that lost most time first, and the others."""
    if profile is None:
        return [], []
    ranked = sorted(profile.layers, key=lambda layer: -max(layer.ms))
    listed = sorted(ranked[:_TIMES_SHOWN], key=lambda layer: layer.ms[0] - layer.ms[1])
    return listed, ranked[_TIMES_SHOWN:]


# -- words ------------------------------------------------------------------------------------

#: What a candidate is, by the beginning of its name.
_CANDIDATES = {
    "all": "all that the target runs in integers is integer",
    "conversions": "what is cheapest in integers is integer, and the rest was left in float",
    "float, prepared": "no placement was faster than the float model with constants folded and "
    "operators fused, so that this one was written",
    "float": "no placement was faster than the float model, so that this one was written",
    "weights unpacked": "weights are stored in few bits and unpacked when the model is loaded, "
    "which was faster than kernels on codes",
}


def _placement(report: Report) -> str:
    found = report.placement
    if found is None:
        return "Nothing was chosen by cost."
    what = next((w for name, w in _CANDIDATES.items() if found.chosen.startswith(name)), "")
    line = placement_line(found)
    how = {
        "auto": "Candidates were timed as whole models, in turn",
        "all": "Nothing was measured, as asked",
        "patterns": "The names that --place gives decided",
    }[found.mode]
    cached = ", in an earlier run" if found.cached else ""
    said = f"{how}{cached}: {what or found.chosen}."
    return f"{said} {line[:1].upper()}{line[1:]}." if line else said


def _special(report: Report) -> list[tuple[int, str, tuple[str, ...]]]:
    """Return what happened to single nodes that a user may want to look into."""
    found = [
        ("weights with larger scales, so that the bias fits int32", report.widened),
        ("biases rounded by more than half a step of the output", report.coarse_biases),
    ]
    if report.placement is not None:
        found.append(("nodes written in another form", tuple(report.placement.variants)))
    return [(len(nodes), what, nodes) for what, nodes in found if nodes]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {visible(op)}" for op, count in counts.items())


def _facts(report: Report) -> list[tuple[str, str]]:
    here = report.environment
    facts = [
        ("CPU", f"{here.cpu or here.machine}, {here.cores} cores ({here.machine})"),
        ("Versions", f"ptq {here.ptq}, onnxruntime {here.onnxruntime}, Python {here.python}"),
        ("Float model", f"{report.input.path} (sha256 {report.input.sha256[:16]}…)"),
    ]
    outputs = report.outputs or ((report.output,) if report.output is not None else ())
    facts += [("Quantized model", f"{o.path} (sha256 {o.sha256[:16]}…)") for o in outputs]
    for what, data in (("Calibration", report.calibration), ("Evaluation", report.evaluation)):
        if data is not None:
            made_up = ", random numbers" if data.synthetic else ""
            role = "" if data.role == what.lower() else f"; {data.role}"
            facts.append((what, f"{data.source}, {data.samples} samples{made_up}{role}"))
    seconds = ", ".join(f"{stage} {s:.1f}" for stage, s in report.stages_s.items())
    facts.append(("Seconds", seconds or "not measured"))
    facts.append(("Peak memory", f"{report.peak_rss_bytes / 1e6:.0f} MB"))
    return facts
