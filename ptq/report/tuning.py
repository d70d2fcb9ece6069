"""What `ptq tune` tried, and what came of it: as data, and as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ptq.evaluate.latency import Latency
from ptq.report.check import (
    MAX_DROP,
    Figure,
    Held,
    drop_text,
    figure_text,
    interval_text,
    percent_text,
)
from ptq.report.report import Environment
from ptq.report.table import aligned, megabytes

#: Raised whenever a field changes its meaning or goes away.
SCHEMA = 1


class TunedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One rung of the ladder: a model that was made and measured, or why there is none.

    Attributes:
        rung: what was tried.
        path: the rungs whose changes are in it, in their order.
        left_out: why it was not tried; empty if it was.
        failed: why there is no model; empty if there is one.
        choosing: figures on the samples that choose: those of the task, and the SQNR.
        reporting: the same on the samples that nothing was chosen with.
        size_bytes: of the model with its external data.
        latency: beside the float model; of the rung it started from where kernels are the same.
        same_kernels: whether that is so.
        seconds: what it took when it was measured.
        remembered: whether an earlier run had measured it.
        held: each limit, held on the samples that choose.
        front: whether no other point is better in accuracy, size or latency and worse in none.
        sha256: of the model.
        recipe: the recipe that makes it again, for `ptq quantize --recipe`.
    """

    rung: str
    path: tuple[str, ...]
    left_out: str = ""
    failed: str = ""
    choosing: tuple[Figure, ...] = ()
    reporting: tuple[Figure, ...] = ()
    size_bytes: int = 0
    latency: Latency | None = None
    same_kernels: bool = False
    seconds: float = 0.0
    remembered: bool = False
    held: tuple[Held, ...] = ()
    front: bool = False
    sha256: str = ""
    recipe: str = ""

    @property
    def measured(self) -> bool:
        """Whether there is a model."""
        return not (self.left_out or self.failed)

    @property
    def label(self) -> str:
        """What is in it."""
        return " + ".join(self.path)


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that tuning tried, and the model it chose.

    Attributes:
        model: path of the float model.
        size_bytes: of the float model.
        calibration: where the calibration data comes from.
        data: where the samples come from that choose.
        report_data: where those come from that are reported on.
        samples: how many there are of either.
        tasks: names of the figures that ``--max-drop`` holds.
        limits: the limits as they were given, by option.
        points: every rung, in the order tried.
        winner: number of the point that was written, from 0; ``None`` if no model could be made.
        satisfied: whether the winner holds every limit on the samples that choose, and misses none
            for certain on the others.
        held: each limit, held on the samples to report on, for the winner.
        confidence: of the intervals.
        spent_s: what all trials took when they were measured.
        budget_s: what they might take.
        output: path of the winner.
        notices: what the user should know.
        environment: versions and machine.
        schema: version of this format.
    """

    model: str
    size_bytes: int
    calibration: str
    data: str
    report_data: str
    samples: tuple[int, int]
    tasks: tuple[str, ...]
    limits: dict[str, str]
    points: tuple[TunedPoint, ...]
    winner: int | None
    satisfied: bool
    held: tuple[Held, ...]
    confidence: float
    spent_s: float
    budget_s: float
    output: str
    notices: tuple[str, ...]
    environment: Environment
    schema: int = SCHEMA

    @property
    def best(self) -> TunedPoint | None:
        """The winner."""
        return None if self.winner is None else self.points[self.winner]

    @property
    def verdict(self) -> str:
        """What came of it, in a line."""
        best = self.best
        if best is None:
            return "no model could be made"
        if self.satisfied:
            return f"'{best.label}' holds every limit"
        missed = [*(h for h in best.held if h.verdict == "missed")]
        missed = missed or [h for h in self.held if h.verdict == "missed"]
        options = ", ".join(dict.fromkeys(h.option for h in missed))
        return f"nothing that was tried holds {options}; '{best.label}' comes nearest"

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def tuning_text(found: Tuning) -> str:
    """Return what `ptq tune` prints."""
    lines = aligned(tuning_rows(found), words=2)
    left_out = not_measured(found)
    if left_out:
        lines += ["", "not measured:", *(f"  {', '.join(r)}: {why}" for why, r in left_out)]
    return "\n".join([*lines, "", *tuning_notes(found)])


def not_measured(found: Tuning) -> list[tuple[str, list[str]]]:
    """Return why there is no model of some rungs, with the rungs of each reason."""
    rungs: dict[str, list[str]] = {}
    for point in found.points:
        if not point.measured:
            why = point.left_out or point.failed
            rungs.setdefault(why, []).append(point.rung)
    return list(rungs.items())


def tuning_rows(found: Tuning) -> list[tuple[str, ...]]:
    """Return the rows of the table: a head, and each point that was measured."""
    shares = f"drop, {percent_text(found.confidence)} interval"
    head = ("", "settings", "drop where chosen", shares, "SQNR", "size", "speed")
    rows: list[tuple[str, ...]] = [(*head, "seconds", "limits")]
    for number, point in enumerate(found.points):
        if point.measured:
            rows.append(_row(found, number, point))
    return rows


def _row(found: Tuning, number: int, point: TunedPoint) -> tuple[str, ...]:
    mark = "=>" if number == found.winner else "*" if point.front else ""
    seconds = f"{point.seconds:.1f}" + (" (kept)" if point.remembered else "")
    return (
        mark,
        point.label,
        "; ".join(drop_text(f.drop, f.unit) for f in point.choosing if f.name in found.tasks),
        "; ".join(drop_with_interval(f) for f in point.reporting if f.name in found.tasks),
        sqnr_text(point.reporting),
        f"{point.size_bytes / found.size_bytes:.3f}x",
        speed_text(point),
        seconds,
        ", ".join(f"{h.option} missed" for h in point.held if h.verdict == "missed") or "hold",
    )


def drop_with_interval(figure: Figure) -> str:
    """Return by how much a figure is worse, and between what that is."""
    drop = drop_text(figure.drop, figure.unit)
    if figure.drop_lo is None or figure.drop_hi is None:
        return drop
    return f"{drop} ({interval_text(figure, figure.drop_lo, figure.drop_hi, drop=True)})"


def sqnr_text(figures: tuple[Figure, ...]) -> str:
    """Return the SQNR among figures; empty if there is none."""
    for figure in figures:
        if figure.name == "sqnr":
            return figure_text(figure.value, figure.unit)
    return ""


def speed_text(point: TunedPoint) -> str:
    """Return how fast a point is, with its spread."""
    if point.latency is None:
        return "-"
    same = "same " if point.same_kernels else ""
    return f"{same}{point.latency.speedup:.2f}x (spread {point.latency.spread:.2f}x)"


def tuning_notes(found: Tuning) -> Iterator[str]:
    """Yield what belongs below the table."""
    choosing, reporting = found.samples
    yield (
        f"=> chosen, * on the Pareto front; figures are of {reporting} samples to report on "
        f"('{found.report_data}'), choices were made on {choosing} others ('{found.data}')"
    )
    tried = [p for p in found.points if p.measured or p.failed]
    known = sum(p.remembered for p in tried)
    more = f", {known} of them kept from earlier runs" if known else ""
    yield (f"{len(tried)} trials{more}, which took {found.spent_s:.1f} s of {found.budget_s:.0f} s")
    best = found.best
    if best is None:
        return
    for held in best.held:
        yield f"{held.option} {found.limits.get(held.option, '')}: {limit_line(found, held)}"
    size = f"{megabytes(found.size_bytes)} to {megabytes(best.size_bytes)}"
    yield f"{best.label}: {size}, {speed_text(best)} the speed of float"


def limit_line(found: Tuning, held: Held) -> str:
    """Return how a limit is held, where it was chosen by and where it is reported."""
    said = f"{held.verdict} on the samples that chose"
    if held.option != MAX_DROP:
        return f"{held.verdict}{_uncertain(held)}"
    for other in found.held:
        if (other.figure, other.option) == (held.figure, held.option):
            also = "and" if other.verdict == held.verdict else "but"
            return f"{said}, {also} {other.verdict} on the others{_uncertain(other)}"
    return said


def _uncertain(held: Held) -> str:
    return f" ({held.remark})" if held.remark else ""
