"""What came of a batch of models: as data, and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from ptq.evaluate.latency import Latency
from ptq.report.check import Check, Figure, FigureUnit, figure_text
from ptq.report.decibels import decibels
from ptq.report.names import visible
from ptq.report.report import Environment, Report
from ptq.report.table import aligned, megabytes
from ptq.report.verdict import keeps_float

#: Raised whenever a field changes its meaning or goes away; new fields may come without.
SCHEMA = 1

#: What came of a model: quantized, and good enough if that was to be checked; sound, but a
#: threshold was missed; an error; an end by the user; or nothing, because the batch ended before.
Status: TypeAlias = Literal["done", "missed", "failed", "interrupted", "not run"]

#: Exit codes of the command, by the status that wins over those after it.
_EXIT_CODES: dict[Status, int] = {"interrupted": 130, "failed": 1, "not run": 1, "missed": 3}

#: Figures of a check that every model has.
_OF_ALL = frozenset({"sqnr", "cosine", "size_bytes", "speedup", "integer_kernels"})

_HEAD = ("", "float", "quantized", "", "speed", "SQNR", "task", "")


class TaskFigure(msgspec.Struct, frozen=True, kw_only=True):
    """What the models are for, as one figure.

    Attributes:
        title: what it is called.
        unit: how it reads.
        value: the quantized model's.
        reference: the float model's; ``None`` where the figure is about both, as agreement is.
    """

    title: str
    unit: FigureUnit
    value: float | None
    reference: float | None


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one model.

    Attributes:
        label: what it is called in tables: the end of the path that tells it from the others.
        model: path of the float model.
        output: path of the quantized model.
        status: ``done``, ``missed``, ``failed``, ``interrupted`` or ``not run``.
        message: the error, or what was missed; empty if all is well.
        up_to_date: whether the quantized model was there already, made from the same.
        float_kept: whether it is the float model, because nothing was faster.
        input_bytes: size of the float model; ``None`` if it could not be quantized.
        output_bytes: size of the quantized model, likewise.
        latency: how fast it is; ``None`` if that was not measured.
        sqnr_db: its error; ``None`` if it was not measured or is ``exact``.
        exact: whether the outputs are equal.
        task: ``None`` without labels, class scores or a metric.
        check: everything that `ptq check` says; ``None`` if nothing was to be checked.
        notices: what the user should know.
        seconds: how long it took.
    """

    label: str
    model: str
    output: str
    status: Status
    message: str = ""
    up_to_date: bool = False
    float_kept: bool = False
    input_bytes: int | None = None
    output_bytes: int | None = None
    latency: Latency | None = None
    sqnr_db: float | None = None
    exact: bool = False
    task: TaskFigure | None = None
    check: Check | None = None
    notices: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """What came of it, in a line."""
        if self.status in ("failed", "missed"):
            return f"{self.status}: {self.message}"
        if self.status in ("interrupted", "not run"):
            return self.status
        said = ["up to date"] if self.up_to_date else []
        said += ["float model kept"] if self.float_kept else []
        said += ["holds"] if self.check is not None else []
        return ", ".join(said) or "done"

    def as_found(self, input_bytes: int, output_bytes: int) -> BatchRow:
        """Return the row of a model that is up to date."""
        return msgspec.structs.replace(
            self, up_to_date=True, input_bytes=input_bytes, output_bytes=output_bytes
        )

    def with_report(self, report: Report) -> BatchRow:
        """Return the row with the figures of a quantization."""
        accuracy = report.accuracy
        exact = accuracy is not None and all(o.max_abs == 0 for o in accuracy.outputs)
        return msgspec.structs.replace(
            self,
            float_kept=keeps_float(report),
            input_bytes=report.input.size_bytes,
            output_bytes=report.output.size_bytes if report.output is not None else None,
            latency=report.latency,
            sqnr_db=accuracy.sqnr_db if accuracy is not None else None,
            exact=exact,
            task=_task_of(report),
            notices=(*self.notices, *report.notices),
        )

    def with_check(self, check: Check) -> BatchRow:
        """Return the row with what a check measured, which wins over what is there."""
        figures = {figure.name: figure for figure in check.figures}
        changes: dict[str, object] = {"check": check}
        if not check.passed:
            missed = "; ".join(check.describe(held) for held in check.missed)
            changes |= {"status": "missed", "message": missed}
        if check.latency is not None:
            changes["latency"] = check.latency
        if "sqnr" in figures:
            changes |= {"sqnr_db": figures["sqnr"].value, "exact": figures["sqnr"].value is None}
        task = next(filter(None, map(_task_figure, check.figures)), None)
        if task is not None:
            changes["task"] = task
        changes["notices"] = tuple(dict.fromkeys((*self.notices, *check.notices)))
        return msgspec.structs.replace(self, **changes)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What came of several models.

    Attributes:
        rows: each model, in the order in which they were to be done.
        environment: versions and machine.
        seconds: how long all of it took.
        schema: version of this format.
    """

    rows: tuple[BatchRow, ...]
    environment: Environment
    seconds: float
    schema: int = SCHEMA

    @property
    def exit_code(self) -> int:
        """That of `ptq batch`: of the row that says worst; 0 if all are done."""
        found = {row.status for row in self.rows}
        return next((code for status, code in _EXIT_CODES.items() if status in found), 0)

    @property
    def summary(self) -> str:
        """How many models came to what, in a line."""
        counts = Counter("up to date" if _is_old(row) else row.status for row in self.rows)
        order = ("done", "up to date", "missed", "failed", "interrupted", "not run")
        said = ", ".join(f"{counts[what]} {what}" for what in order if counts[what])
        models = f"{len(self.rows)} model{'' if len(self.rows) == 1 else 's'}"
        return f"{models} in {duration(self.seconds)}: {said}"

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        record = {**msgspec.to_builtins(self), "exit_code": self.exit_code}
        return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def _is_old(row: BatchRow) -> bool:
    return row.status == "done" and row.up_to_date


def batch_text(found: Batch) -> str:
    """Return what `ptq batch` prints: a table, and a line that sums it up."""
    return "\n".join([*aligned([_HEAD, *_cells(found)]), "", found.summary])


def batch_markdown(found: Batch) -> str:
    """Return the same for a pull request."""
    head = ("model", "float", "quantized", "", "speed", "SQNR", "task", "result")
    rule = ("---", *("---:",) * 6, "---")
    rows = [head, rule, *_cells(found)]
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return "\n".join([*lines, "", f"{found.summary}."]) + "\n"


def _escaped(cell: str) -> str:
    for special in "\\`*_[]<>|":
        cell = cell.replace(special, f"\\{special}")
    return " ".join(cell.split())


def _cells(found: Batch) -> Iterator[tuple[str, ...]]:
    for row in found.rows:
        figures = (*_sizes(row), _speed(row), _error(row), _task(row))
        yield (visible(row.label), *figures, visible(row.verdict))


def _sizes(row: BatchRow) -> tuple[str, str, str]:
    if row.input_bytes is None or row.output_bytes is None:
        return "-", "-", "-"
    ratio = row.input_bytes / row.output_bytes
    sizes = megabytes(row.input_bytes), megabytes(row.output_bytes)
    if row.input_bytes == row.output_bytes:
        return *sizes, "same"
    return *sizes, f"{ratio:.1f}x smaller" if ratio > 1 else f"{1 / ratio:.1f}x larger"


def _speed(row: BatchRow) -> str:
    if row.latency is None:
        return "-"
    verdict, speedup = row.latency.verdict, row.latency.speedup
    if verdict == "no difference":
        return "same"
    return f"{speedup if speedup > 1 else 1 / speedup:.2f}x {verdict}"


def _error(row: BatchRow) -> str:
    if row.exact:
        return "exact"
    return decibels(row.sqnr_db, equal="-")


def _task(row: BatchRow) -> str:
    task = row.task
    if task is None:
        return "-"
    before = f"{figure_text(task.reference, task.unit)} to " if task.reference is not None else ""
    return f"{task.title} {before}{figure_text(task.value, task.unit)}"


def _task_figure(figure: Figure) -> TaskFigure | None:
    """Return a figure of a check if it is about the task: what all models have is not."""
    if figure.name in _OF_ALL or figure.reference is None:
        return None
    if figure.name == "agreement":
        return TaskFigure(title=figure.name, unit="share", value=figure.value, reference=None)
    return TaskFigure(
        title=figure.title, unit=figure.unit, value=figure.value, reference=figure.reference
    )


def _task_of(report: Report) -> TaskFigure | None:
    found = report.accuracy
    if found is None:
        return None
    if found.quantized_top1 is not None:
        return TaskFigure(
            title="top-1", unit="share", value=found.quantized_top1, reference=found.float_top1
        )
    if found.agreement is None:
        return None
    return TaskFigure(title="agreement", unit="share", value=found.agreement, reference=None)


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s"
