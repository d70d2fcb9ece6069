"""Quantize and check several models, one after the other, whatever comes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from ptq.benching import labels_of
from ptq.checking import CheckOptions, check
from ptq.config import QuantizeConfig
from ptq.errors import ConfigError, PtqError, ThresholdError
from ptq.freshness import is_current, is_ours
from ptq.graph.load import model_size
from ptq.options import RunOptions
from ptq.pipeline import Data, default_output, quantize
from ptq.places import require_text
from ptq.progress import Progress
from ptq.report import Environment
from ptq.report.batch import Batch, BatchRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What a quantized model is to be held against.

    Attributes:
        data: real inputs, as `ptq.check` takes them.
        options: thresholds and all.
    """

    data: str
    options: CheckOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One model to quantize, and to check if that is wanted.

    Attributes:
        model: the float model.
        calibration: as `ptq.quantize` takes it.
        config: how to quantize.
        options: where to write and what to measure on. Its ``force`` and ``on_progress`` are the
            batch's to choose.
        checks: ``None`` for none.
    """

    model: Path
    calibration: Data | None = None
    config: QuantizeConfig = field(default_factory=QuantizeConfig)
    options: RunOptions = field(default_factory=RunOptions)
    checks: Checks | None = None

    def __post_init__(self) -> None:
        """Take the name of a file as text too."""
        object.__setattr__(self, "model", Path(self.model))

    @property
    def output(self) -> Path:
        """Where the quantized model goes."""
        return self.options.output or default_output(self.model, self.config, self.options)

    @property
    def places(self) -> list[Path]:
        """Every file that is to be written, the output first."""
        places = [self.output, self.options.report, self.options.page]
        if self.checks is not None:
            held = self.checks.options
            places += [held.report, held.markdown, held.junit]
        return [place for place in places if place is not None]


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        label: the model at hand.
        done: models done.
        total: models in all.
        stage: how far the model's stage is; ``None`` before its first and when it is done.
    """

    label: str
    done: int
    total: int
    stage: Progress | None = None


def _ignore(_: BatchProgress | BatchRow) -> None:
    """Take no notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How a batch goes.

    Attributes:
        force: whether to do what is up to date, and to replace files that `ptq` did not make.
        fail_fast: whether to end at the first model of which not all is well.
        on_progress: told of every step.
        on_row: told what came of each model that was begun, when it is known.
    """

    force: bool = False
    fail_fast: bool = False
    on_progress: Callable[[BatchProgress], None] = _ignore
    on_row: Callable[[BatchRow], None] = _ignore


def batch(tasks: Sequence[Task], options: BatchOptions | None = None) -> Batch:
    """Quantize and check models, one after the other, and say what came of each.

    One model at a time, because timings need a quiet machine. An error is kept in the model's row,
    and the next model goes on. A model whose output is up to date is not quantized again, but it is
    checked. Ctrl-C ends the batch: what is done stays, and the rows say what was not.

    Example:
        >>> found = ptq.batch(ptq.read_tasks("ptq.toml"))
        >>> [row.label for row in found.rows if row.status != "done"]
        []

    Args:
        tasks: the models; `ptq.read_tasks` gives those of a recipe.
        options: what to do again, and when to end.

    Raises:
        ConfigError: there is nothing to do, a setting is wrong, or two models have one output.
    """
    options = options or BatchOptions()
    _require_sound(tasks)
    labels = labels_of([task.model for task in tasks])
    rows: list[BatchRow] = []
    began, ended = time.perf_counter(), False
    for label, task in zip(labels, tasks, strict=True):
        blank = BatchRow(
            label=label, model=str(task.model), output=str(task.output), status="not run"
        )
        if ended:
            rows.append(blank)
            continue
        now = BatchProgress(label, len(rows), len(tasks))
        options.on_progress(now)
        row = _done(task, blank, options, now)
        rows.append(row)
        options.on_row(row)
        options.on_progress(replace(now, done=len(rows)))
        ended = row.status == "interrupted" or (options.fail_fast and row.status != "done")
    seconds = time.perf_counter() - began
    return Batch(rows=tuple(rows), environment=Environment.here(), seconds=seconds)


def _require_sound(tasks: Sequence[Task]) -> None:
    """Refuse, before any work is done, what cannot come to anything."""
    if not tasks:
        raise ConfigError("there is no model to quantize; name some")
    owners: dict[Path, Task] = {}
    for task in tasks:
        require_text([task.model, task.output])
        try:
            task.config.require_known()
            if task.checks is not None:
                task.checks.options.thresholds()
                task.checks.options.level()
        except ConfigError as error:
            raise ConfigError(f"{task.model}: {error}") from error
        for place in task.places:
            other = owners.setdefault(place.absolute(), task)
            if other is not task:
                raise ConfigError(
                    f"'{other.model}' and '{task.model}' are both to be written to '{place}'; "
                    'write {name} in it for the name of the model, as in "int8/{name}.onnx"'
                )


def _done(task: Task, row: BatchRow, options: BatchOptions, now: BatchProgress) -> BatchRow:
    """Return what came of one model."""

    def tell(progress: Progress) -> None:
        options.on_progress(replace(now, stage=progress))

    began = time.perf_counter()
    try:
        row = _quantized(task, row, tell, force=options.force)
        if task.checks is not None:
            given = replace(task.checks.options, on_progress=tell)
            row = row.with_check(check(task.model, task.output, task.checks.data, given))
    except ThresholdError as error:
        row = msgspec.structs.replace(row, status="missed", message=str(error))
    except (PtqError, OSError) as error:
        row = msgspec.structs.replace(row, status="failed", message=str(error))
    except KeyboardInterrupt:
        row = msgspec.structs.replace(row, status="interrupted")
    return msgspec.structs.replace(row, seconds=time.perf_counter() - began)


def _quantized(
    task: Task, row: BatchRow, tell: Callable[[Progress], None], *, force: bool
) -> BatchRow:
    row = msgspec.structs.replace(row, status="done")
    if not force and is_current(
        task.model, task.output, task.calibration, task.config, task.options
    ):
        return row.as_found(*map(model_size, (task.model, task.output)))
    for place in task.places:
        place.parent.mkdir(parents=True, exist_ok=True)
    replaced = force or not task.output.exists() or is_ours(task.output, task.model)
    given = replace(task.options, force=replaced, on_progress=tell)
    found = quantize(task.model, task.calibration, task.config, options=given)
    return row.with_report(found.report)
