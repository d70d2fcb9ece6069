"""What `ptq check` measured and held, and how its figures read."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ptq.evaluate.latency import Latency
from ptq.report.report import Environment
from ptq.report.table import megabytes

#: Raised whenever a field changes its meaning or goes away; new fields may come without.
SCHEMA = 1

#: How a figure reads: a share of a whole (0..1), decibels, a plain number, a file size, or how many
#: times as fast.
FigureUnit: TypeAlias = Literal["share", "dB", "number", "bytes", "factor"]

Verdict: TypeAlias = Literal["holds", "missed"]

#: What a task figure costs is held by this option, all other figures by one of their own.
MAX_DROP = "--max-drop"

#: The option under which figures are held against those of an earlier run.
BASELINE = "--baseline"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the quantized model; ``None`` stands for what is no number.

    Attributes:
        name: what it is called in a baseline, such as ``sqnr`` or ``topk:k=5``.
        title: what it is called in a table.
        unit: how it reads.
        higher_is_better: whether a larger figure is better.
        value: the quantized model's; ``None`` if the models give equal outputs, which is no number
            of decibels.
        lo: lower end of its confidence interval; of a speed-up, of its spread. ``None`` without.
        hi: the upper end.
        reference: the float model's, ``None`` where the figure is about both.
        drop: by how much the quantized model is worse, ``None`` where ``reference`` is.
        drop_lo: lower end of the confidence interval of the drop.
        drop_hi: the upper end.
        units: how many samples the figure is over, drawn independently; 0 if it is not sampled.
        step: the least that it can change by, such as one image of a share of 40; 0 if any.
        note: what the numbers do not say.
    """

    name: str
    title: str
    unit: FigureUnit
    higher_is_better: bool
    value: float | None
    lo: float | None = None
    hi: float | None = None
    reference: float | None = None
    drop: float | None = None
    drop_lo: float | None = None
    drop_hi: float | None = None
    units: int = 0
    step: float = 0.0
    note: str = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One figure against one threshold.

    Attributes:
        figure: the name of the figure.
        option: the option that holds it, such as ``--max-drop``.
        measured: what is held: the figure, its drop under ``--max-drop``, or the size as a share of
            the float model's; ``None`` if it is no number, being better than any.
        limit: what it must not be worse than; ``None`` likewise.
        verdict: ``holds`` or ``missed``.
        certain: whether the confidence interval, or the spread, is on the same side of the limit.
        was: the baseline's figure under ``--baseline``; ``None`` as for ``measured``.
        tolerance: how much worse than the baseline it may be, in its unit; ``None`` without one.
        needed: about how many samples would tell on which side of the limit it is; ``None`` if
            these do, or if no number of them would.
        remark: what else decides, in words.
    """

    figure: str
    option: str
    measured: float | None
    limit: float | None
    verdict: Verdict
    certain: bool = True
    was: float | None = None
    tolerance: float | None = None
    needed: int | None = None
    remark: str = ""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that has to do with a figure that was missed.

    Attributes:
        node: the node, as the float model calls it.
        op_type: its operator.
        tensor: what it puts out.
        why: what is wrong with it, in words.
        sqnr_db: its error; ``None`` if it is not about accuracy.
        was_db: the baseline's, where there is one.
        clip_share: share of the float values outside the range of the codes, if that is known.
        at_fault: the nodes to keep in float to be rid of its error.
    """

    node: str
    op_type: str
    tensor: str
    why: str
    sqnr_db: float | None = None
    was_db: float | None = None
    clip_share: float | None = None
    at_fault: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it: the node, or the tensor where no node makes it."""
        return self.node or self.tensor


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a check measured, and what it held.

    Attributes:
        name: what the quantized model is called in the baseline and in reports.
        reference: path of the float model.
        quantized: path of the quantized model.
        data: where the samples come from.
        samples: how many feeds were run.
        data_sha256: digest of the feeds, and of the labels if there are any.
        confidence: of the intervals, in 0..1.
        noise: whether a figure within the noise counts as it is (``fail``) or holds (``pass``).
        figures: what was measured.
        held: every figure against every threshold and the baseline.
        improved: names of figures that are better than the baseline by more than the tolerance.
        faults: the layers that have to do with what was missed, the worst first.
        advice: how to quantize again, if it is known which layers to change.
        next_commands: command lines that show more.
        notices: what the user should know.
        environment: versions and machine.
        latency: ``None`` unless speed was measured.
        baseline: path of the baseline, empty without.
        updated: whether this run wrote its figures into the baseline.
        stages_s: wall time by stage.
        schema: version of this format.
    """

    name: str
    reference: str
    quantized: str
    data: str
    samples: int
    data_sha256: str
    confidence: float
    noise: Literal["fail", "pass"]
    figures: tuple[Figure, ...]
    held: tuple[Held, ...]
    improved: tuple[str, ...]
    faults: tuple[Fault, ...]
    advice: str
    next_commands: tuple[str, ...]
    notices: tuple[str, ...]
    environment: Environment
    latency: Latency | None
    baseline: str
    updated: bool
    stages_s: dict[str, float]
    schema: int = SCHEMA

    @property
    def missed(self) -> tuple[Held, ...]:
        """What failed the check."""
        return tuple(held for held in self.held if held.verdict == "missed")

    @property
    def passed(self) -> bool:
        """Whether every figure holds."""
        return not self.missed

    @property
    def verdict(self) -> str:
        """The result in a line, naming what was missed."""
        if self.passed:
            return f"'{self.name}' holds: {_count(len(self.held), 'figure')} checked"
        missed = "; ".join(self.describe(held) for held in self.missed)
        return f"'{self.name}' misses {len(self.missed)} of {len(self.held)}: {missed}"

    def figure(self, name: str) -> Figure:
        """Return the figure of that name."""
        return next(figure for figure in self.figures if figure.name == name)

    def faults_of(self, held: Held) -> tuple[Fault, ...]:
        """Return the layers that have to do with one figure that was missed."""
        if held.verdict == "holds" or held.figure in ("size_bytes", "speedup"):
            return ()
        integer = held.figure == "integer_kernels"
        return tuple(fault for fault in self.faults if (fault.sqnr_db is None) == integer)

    def describe(self, held: Held) -> str:
        """Return what was held, with is and was or limit, in a line."""
        figure = self.figure(held.figure)
        measured = measured_text(figure, held)
        if held.option == BASELINE:
            return (
                f"{figure.title} was {figure_text(held.was, figure.unit)}, is {measured} "
                f"(tolerance {tolerance_text(figure, held)})"
            )
        what = f"{figure.title} is worse by" if held.option == MAX_DROP else f"{figure.title} is"
        return f"{what} {measured}, the limit is {limit_text(figure, held)} ({held.option})"

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        record = {**msgspec.to_builtins(self), "passed": self.passed}
        return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def figure_text(value: float | None, unit: FigureUnit) -> str:
    """Return a figure with its unit."""
    if value is None:
        return "exact" if unit == "dB" else "-"
    match unit:
        case "share":
            return f"{value:.2%}"
        case "dB":
            return f"{value:.2f} dB"
        case "bytes":
            return megabytes(round(value))
        case "factor":
            return f"{value:.2f}x"
        case "number":
            return f"{value:.5g}"


def drop_text(value: float | None, unit: FigureUnit) -> str:
    """Return a difference of two figures with its unit: shares differ by points."""
    if value is not None and unit == "share":
        return f"{100 * value:.2f} points"
    if value is not None and unit == "number":
        return f"{value:.3g}"
    return figure_text(value, unit)


def percent_text(share: float) -> str:
    """Return a share in percent, with no more digits than it has."""
    return f"{100 * share:.6g}%"


def interval_text(figure: Figure, lo: float, hi: float, *, drop: bool = False) -> str:
    """Return an interval of a figure, or of its drop, with the unit once."""
    match figure.unit:
        case "share":
            unit = " points" if drop else "%"
            return f"{100 * lo:.2f}..{100 * hi:.2f}{unit}"
        case "dB":
            return f"{lo:.2f}..{hi:.2f} dB"
        case "factor":
            return f"{lo:.2f}..{hi:.2f}x"
        case _:
            digits = 3 if drop else 5
            return f"{lo:.{digits}g}..{hi:.{digits}g}"


def measured_text(figure: Figure, held: Held) -> str:
    """Return what was held, with its unit."""
    return _held_text(held.measured, figure, held)


def limit_text(figure: Figure, held: Held) -> str:
    """Return the limit, with its unit."""
    if held.option == MAX_DROP and figure.unit == "share" and held.limit is not None:
        return f"{100 * held.limit:.4g} points"
    return _held_text(held.limit, figure, held)


def tolerance_text(figure: Figure, held: Held) -> str:
    """Return how much worse than the baseline a figure may be."""
    if held.tolerance is not None and figure.unit == "share":
        return f"{100 * held.tolerance:.4g} points"
    return drop_text(held.tolerance, figure.unit)


def _held_text(value: float | None, figure: Figure, held: Held) -> str:
    if held.option == MAX_DROP:
        return drop_text(value, figure.unit)
    if held.option != BASELINE and figure.unit == "bytes" and value is not None:
        return f"{value:.3g}x"
    return figure_text(value, figure.unit)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
