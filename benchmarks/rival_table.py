"""The tables of rivals.py: what is known of each row of each model, and who is best."""

import math
from collections.abc import Iterable, Mapping, Sequence

from common import NOT_THERE, sqnr_cell, table

#: Figures of each row, by its key, of each model.
Found = Mapping[str, Mapping[str, Mapping]]

#: From this SQNR on, in dB, nothing was quantized; only sums are in another order. 8 bits reach 60.
_EQUAL_DB = 80.0

#: A file this many times as large as the other side's has more of the model in float.
_LARGER = 1.25

#: How far apart two SQNRs are before one is called better, in dB: a tenth of the error's power.
_EVEN_DB = 0.5


def merged(records: Iterable[Mapping]) -> dict[str, dict[str, dict]]:
    """Return what is known of each row of each model; of records that say the same, the last holds.

    A record that says how a row was made (or why it failed) takes the place of all before it.
    """
    found: dict[str, dict[str, dict]] = {}
    for record in records:
        rows = found.setdefault(record["model"], {})
        figures = {k: v for k, v in record.items() if k not in ("model", "row")}
        anew = "size_bytes" in figures or "error" in figures
        rows[record["row"]] = {**({} if anew else rows.get(record["row"], {})), **figures}
    return found


def tables(found: Found) -> str:
    """Return the summary of each group, and the table of each model, as markdown."""
    parts = []
    for group in _groups(found):
        parts += [f"### {group}: the best of ptq and of the others", summary(found, group)]
    for model, rows in found.items():
        parts += [f"### {model}", model_table(rows)]
    return "\n\n".join(parts)


def summary(found: Found, group: str) -> str:
    """Return the best of ptq and the best of the others in a group, by SQNR, for each model."""
    figures = ("dB", "figure", "speed", "MB")
    head = ("model", "figure of float", "ptq", *figures, "others", *figures, "better")
    lines = []
    for model, rows in found.items():
        ours, theirs = (best(rows, group, ours=ours) for ours in (True, False))
        sides = (*_short(rows, ours), *_short(rows, theirs))
        of_float = _number(rows.get("float", {}), "figure", ".3f")
        lines.append((model, of_float, *sides, _verdict(rows, ours, theirs)))
    return table(head, lines)


def model_table(rows: Mapping[str, Mapping]) -> str:
    """Return all that is known of a model's rows, the least error first within a group."""
    head = ("", "SQNR dB", "worst output", "figure", "speed", "MB", "wall s", "CPU s", "peak MB")
    keys = sorted(rows, key=lambda key: (_group(key), -sqnr_db(rows[key])))
    lines = [(key, *_cells(rows[key])) for key in keys]
    failed = [f"- {key}: {rows[key]['error']}" for key in keys if "error" in rows[key]]
    return "\n".join([table(head, lines), *([""] if failed else []), *failed])


def best(rows: Mapping[str, Mapping], group: str, *, ours: bool) -> str | None:
    """Return the key of the row of least error: of ptq's, or of the others'.

    A file that gives what the float model gives is not looked at: nothing was quantized.
    """
    keys = [
        key
        for key, figures in rows.items()
        if _group(key) == group and _is_ptq(key) == ours
        if -math.inf < sqnr_db(figures) < _EQUAL_DB
    ]
    return max(keys, key=lambda key: sqnr_db(rows[key]), default=None)


def sqnr_db(figures: Mapping) -> float:
    """Return the SQNR: infinite where outputs are equal, and worse than all if there is none."""
    if "sqnr_db" not in figures:
        return -math.inf
    return math.inf if figures["sqnr_db"] is None else figures["sqnr_db"]


def _groups(found: Found) -> Sequence[str]:
    groups = dict.fromkeys(_group(key) for rows in found.values() for key in rows)
    return [group for group in groups if group]


def _group(key: str) -> str:
    return key.partition(": ")[0] if ": " in key else ""


def _is_ptq(key: str) -> bool:
    return key.partition(": ")[2].split(" ")[0] == "ptq"


def _cells(figures: Mapping) -> tuple[str, ...]:
    return (
        sqnr_cell(figures),
        _number(figures, "worst_db", ".1f"),
        _number(figures, "figure", ".3f"),
        _number(figures, "speedup", ".2f", "x"),
        _number(figures, "size_bytes", ".2f", scale=1e-6),
        _number(figures, "wall_s", ".0f"),
        _number(figures, "cpu_s", ".0f"),
        _number(figures, "peak_rss_mb", ".0f"),
    )


def _short(rows: Mapping[str, Mapping], key: str | None) -> tuple[str, ...]:
    if key is None:
        return (NOT_THERE,) * 5
    error, _, figure, speed, size, *_ = _cells(rows[key])
    return (key.partition(": ")[2], error, figure, speed, size)


def _verdict(rows: Mapping[str, Mapping], ours: str | None, theirs: str | None) -> str:
    if ours is None or theirs is None:
        return "ptq" if ours else "others" if theirs else NOT_THERE
    gain = sqnr_db(rows[ours]) - sqnr_db(rows[theirs])
    if abs(gain) < _EVEN_DB:
        return "even"
    winner, loser = (ours, theirs) if gain > 0 else (theirs, ours)
    larger = rows[winner]["size_bytes"] > _LARGER * rows[loser]["size_bytes"]
    return f"{'ptq' if gain > 0 else 'others'}{', larger' if larger else ''}"


def _number(figures: Mapping, key: str, form: str, unit: str = "", scale: float = 1.0) -> str:
    value = figures.get(key)
    return NOT_THERE if value is None else f"{value * scale:{form}}{unit}"
