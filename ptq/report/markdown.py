"""The report as Markdown for a pull request: GitHub-flavoured, without any HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from ptq.report.decibels import decibels
from ptq.report.layer_table import LayerRow, layer_rows, worst_first
from ptq.report.names import shortened, visible
from ptq.report.placement import placement_line
from ptq.report.reasons import reasons_of
from ptq.report.report import FloatNodes, Report
from ptq.report.text import summary_rows
from ptq.report.verdict import missing_parts, verdict
from ptq.report.widths import quantized_title
from ptq.runtime.layer import count_layers

#: How many layers and how many reasons are listed.
_WORST, _REASONS = 10, 8

#: What would be markup anywhere, and what begins a list.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#!|~&$]|^\s*[-+=]|^\s*\d+(?=[.)](\s|$))")

#: What makes a mention or a link; it is broken up behind its first sign.
_LINK = re.compile(r"(://|@|www\.)", re.IGNORECASE)

_TICKS = re.compile(r"`+")


def markdown_page(report: Report) -> str:
    """Return a report as Markdown: the verdict, one table, the worst layers, why float, notices."""
    integer, total = count_layers(report.layers)
    rows = layer_rows(report)
    parts = [
        f"### {code(PurePath(report.input.path).name)}: {plain(verdict(report))}",
        _summary(report),
        f"{integer} of {total} layers run as integer kernels in "
        f"onnxruntime {plain(report.environment.onnxruntime)}. {_placement(report)}".strip(),
        *_notices(report),
        *_worst(worst_first(rows), timed=report.profile is not None),
        *_slower(rows),
        *_why_float(report.float_nodes),
        *(f"Note: {plain(text)}." for text in missing_parts(report)),
        _where(report),
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line, and that mentions and links nobody."""
    escaped = _MARKUP.sub(_escaped, visible(text))
    # a zero-width space: GitHub looks for mentions and addresses after escapes are gone
    return _LINK.sub(lambda sign: f"{sign[0][0]}\u200b{sign[0][1:]}", escaped)


def _escaped(found: re.Match[str]) -> str:
    # a digit takes no backslash: it goes before the point behind it
    return f"{found[0]}\\" if found[0][-1].isdigit() else f"{found[0][:-1]}\\{found[0][-1]}"


def code(text: str) -> str:
    """Return a name as code; in a table too, where a bar would begin a cell."""
    text = shortened(text)
    if not text:
        return "(no name)"
    fence = "`" * (max((len(run) for run in _TICKS.findall(text)), default=0) + 1)
    # spaces of its own would be taken for those that keep ticks apart
    padded = text.strip(" ") and (text[0] in "` " or text[-1] in "` ")
    space = " " if padded else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _table(head: Sequence[str], right: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a table; ``right`` has an ``r`` for each column of numbers."""
    ruler = ["--:" if side == "r" else "---" for side in right]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))


def _summary(report: Report) -> str:
    rows = (map(plain, (what.strip(), *figures)) for what, *figures in summary_rows(report))
    return _table(("", "float", quantized_title(report), ""), "lrrl", map(list, rows))


def _placement(report: Report) -> str:
    line = placement_line(report.placement) if report.placement is not None else ""
    return f"{plain(line[:1].upper() + line[1:])}." if line else ""


def _notices(report: Report) -> list[str]:
    if not report.notices:
        return []
    return ["\n".join(f"- {plain(notice)}" for notice in report.notices)]


def _worst(rows: Sequence[LayerRow], *, timed: bool) -> list[str]:
    if not rows:
        return []
    head, right = ["layer", "operator", "isolated", "accumulated", "clipped"], "llrrr"
    if timed:
        head, right = [*head, "float", "quantized"], f"{right}rr"
    cells = [
        [
            f"{row.number}: {code(row.name)}",
            plain(row.op_type),
            decibels(row.isolated_db, equal="-"),
            decibels(row.accumulated_db, equal="-"),
            "-" if row.clip_share is None else f"{row.clip_share:.2%}",
            *(map(_milliseconds, (row.float_ms, row.quantized_ms)) if timed else ()),
        ]
        for row in rows[:_WORST]
    ]
    title = "**Layers with the largest error of their own**"
    return [title, _table(head, right, cells)]


def _slower(rows: Sequence[LayerRow]) -> list[str]:
    """Name the layers that got slower most."""
    lost = [
        (row.quantized_ms - row.float_ms, row)
        for row in rows
        if row.quantized_ms is not None and row.float_ms is not None
    ]
    lost = sorted((pair for pair in lost if pair[0] > 0), key=lambda pair: -pair[0])
    if not lost:
        return []
    named = [f"{code(row.name)} by {ms:.3f} ms" for ms, row in lost[:3]]
    return [f"{len(lost)} layers are slower than in float, most of all {', '.join(named)}."]


def _why_float(groups: Sequence[FloatNodes]) -> list[str]:
    if not groups:
        return []
    reasons = reasons_of(groups)
    cells = [
        [
            plain(r.why),
            str(len(r.nodes)),
            plain(", ".join(f"{n} {op}" for op, n in r.operators.items())),
        ]
        for r in reasons[:_REASONS]
    ]
    if rest := reasons[_REASONS:]:
        cells.append([f"{len(rest)} other reasons", str(sum(len(r.nodes) for r in rest)), ""])
    return ["**Kept in float**", _table(["why", "nodes", "operators"], "lrl", cells)]


def _where(report: Report) -> str:
    here = report.environment
    cpu = f"{here.cpu or here.machine}, {here.cores} cores"
    return plain(f"Measured on {cpu}, with ptq {here.ptq} and onnxruntime {here.onnxruntime}.")


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} ms"
