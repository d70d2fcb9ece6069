"""A check as text for a terminal, and what its table has in any rendering."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ptq.report.check import (
    BASELINE,
    Check,
    Fault,
    Figure,
    Held,
    drop_text,
    figure_text,
    interval_text,
    limit_text,
    percent_text,
    tolerance_text,
)
from ptq.report.names import shortened
from ptq.report.table import aligned


def check_text(found: Check) -> str:
    """Return what `ptq check` prints."""
    lines = aligned(check_rows(found))
    notes = [*check_notes(found)]
    if notes:
        lines += ["", *notes]
    for title, faults in fault_groups(found):
        rows = ((f"  {shortened(f.name)}", f.op_type, f.why) for f in faults)
        lines += ["", title, *aligned(rows, words=2)]
    if found.advice:
        lines += ["", f"next: {found.advice}"]
    if found.next_commands:
        lines += ["", "to see more:", *(f"  {line}" for line in found.next_commands)]
    return "\n".join(lines)


def fault_groups(found: Check) -> Iterator[tuple[str, list[Fault]]]:
    """Yield the layers that have to do with accuracy, and those in float, each under a title."""
    titles = {False: "layers at fault, the worst first", True: "layers in float, the first of them"}
    for floats, title in titles.items():
        faults = [fault for fault in found.faults if (fault.sqnr_db is None) == floats]
        if faults:
            yield title, faults


def check_rows(found: Check) -> list[tuple[str, ...]]:
    """Return the rows of the table: a head, then each figure once for all that holds it."""
    head = ("", "float", "quantized", "drop", f"{percent_text(found.confidence)} interval")
    rows: list[tuple[str, ...]] = [(*head, "limit", "verdict")]
    for figure in found.figures:
        held = [h for h in found.held if h.figure == figure.name]
        cells = (
            figure.title,
            "" if figure.reference is None else figure_text(figure.reference, figure.unit),
            figure_text(figure.value, figure.unit),
            *_drop(figure),
        )
        blank = ("",) * len(cells)
        rows += [
            (*(blank if i else cells), *_limit(figure, h)) for i, h in enumerate(held or [None])
        ]
    return rows


def _drop(figure: Figure) -> tuple[str, str]:
    if figure.unit == "bytes" and figure.value is not None and figure.reference:
        return f"{figure.value / figure.reference:.3g}x", ""
    if figure.drop is None:
        return "", _interval(figure, figure.lo, figure.hi)
    interval = _interval(figure, figure.drop_lo, figure.drop_hi, drop=True)
    return drop_text(figure.drop, figure.unit), interval


def _interval(figure: Figure, lo: float | None, hi: float | None, *, drop: bool = False) -> str:
    if lo is None and hi is None:
        return ""
    ends = (-math.inf if lo is None else lo), (math.inf if hi is None else hi)
    return interval_text(figure, *ends, drop=drop)


def _limit(figure: Figure, held: Held | None) -> tuple[str, str]:
    if held is None:
        return "", ""
    if held.option == BASELINE:
        was = figure_text(held.was, figure.unit)
        return f"was {was}, tolerance {tolerance_text(figure, held)}", held.verdict
    at_most = held.option.startswith("--max")
    return f"{'≤' if at_most else '≥'} {limit_text(figure, held)}", held.verdict


def check_notes(found: Check) -> Iterator[str]:
    """Yield what the table does not say, a line each."""
    for figure in found.figures:
        if figure.note:
            yield f"{figure.title}: {figure.note}"
    for held in found.held:
        if held.remark:
            yield f"{found.figure(held.figure).title}: {held.remark}"
    if found.improved:
        titles = ", ".join(found.figure(name).title for name in found.improved)
        yield f"better than the baseline: {titles}; --update-baseline keeps it so"
    if found.updated:
        yield f"wrote the figures of '{found.name}' to {found.baseline}"
