"""How it was chosen which operators become integer: the candidates and what they cost."""

from __future__ import annotations

from typing import Literal

import msgspec

#: ``auto`` by measured cost, ``all`` that the target runs, ``patterns`` that the user gave,
#: ``pinned`` what an earlier run decided.
Mode = Literal["auto", "all", "patterns", "pinned"]

_HOW = {
    "auto": "by measured cost",
    "all": "as asked",
    "patterns": "by --place",
    "pinned": "by the recipe",
}

#: The candidate with everything in integers that the target runs.
ALL = "all"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way to place a model.

    Attributes:
        name: ``all`` is the one with everything integer that the target runs.
        integer_nodes: how many nodes are integer in it.
        predicted_ms: the sum of what its kernels cost alone; ``None`` if it was not predicted.
        measured_ms: its latency as a whole model; ``None`` if it was not timed.
        ratio: float time over its time, timed in turn; ``None`` likewise.
    """

    name: str
    integer_nodes: int
    predicted_ms: float | None = None
    measured_ms: float | None = None
    ratio: float | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, and from what.

    Attributes:
        mode: how.
        candidates: what was considered.
        chosen: the name of one of them.
        seconds: how long choosing took.
        variants: nodes that are written in another form, with its name: ``stem`` or ``shift``.
        cached: whether the costs of all kernels were known from an earlier run.
    """

    mode: Mode
    candidates: tuple[Candidate, ...]
    chosen: str
    seconds: float
    cached: bool = False
    variants: dict[str, str] = {}


def placement_line(placement: Placement) -> str:
    """Return the line that a result table has on it; empty if there was nothing to choose from."""
    named = {c.name: c for c in placement.candidates}
    chosen, everything = named.get(placement.chosen), named.get(ALL)
    if chosen is None:
        return ""
    total = max(c.integer_nodes for c in placement.candidates)
    kept = total - chosen.integer_nodes
    how = _HOW[placement.mode]
    if chosen.integer_nodes == 0:
        line = f"placement: all of {total} sites kept in float {how}"
    elif kept:
        line = f"placement: {kept} of {total} sites kept in float {how}"
    else:
        line = f"placement: all {total} sites integer {how}"
    others = "" if everything in (None, chosen) else _cost("all-integer ", everything)
    costs = "; ".join(filter(None, [_costs(chosen), others]))
    return f"{line} ({costs})" if costs else line


def _costs(candidate: Candidate) -> str:
    parts = []
    if candidate.predicted_ms is not None:
        parts.append(f"predicted {candidate.predicted_ms:.2f} ms")
    if candidate.measured_ms is not None:
        parts.append(f"measured {candidate.measured_ms:.2f} ms")
    return ", ".join(parts)


def _cost(prefix: str, candidate: Candidate | None) -> str:
    if candidate is None:
        return ""
    if candidate.measured_ms is not None:
        return f"{prefix}{candidate.measured_ms:.2f} ms"
    if candidate.predicted_ms is not None:
        return f"{prefix}{candidate.predicted_ms:.2f} ms predicted"
    return ""
