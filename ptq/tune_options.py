"""What `ptq tune` is asked for: limits, data, a budget, and where results go."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ptq.errors import ConfigError
from ptq.evaluate.thresholds import Drop, Thresholds, ratio, share
from ptq.options import RunOptions
from ptq.progress import Progress

_TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}

_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)")
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(B|kB|MB|GB)")


@dataclass(frozen=True, slots=True)
class TuneProgress:
    """How far tuning is.

    Attributes:
        label: what is tried.
        done: rungs that are done or left out.
        total: rungs in all.
        stage: how far the trial is; ``None`` when it begins.
    """

    label: str
    done: int
    total: int
    stage: Progress | None = None


def _ignore(_: TuneProgress) -> None:
    """Take no notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """What to reach, on what data, in what time.

    Attributes:
        run: where the model, the JSON and the page go, calibration samples, evaluation data and
            labels, images, threads, and how long to time; its other fields mean nothing here.
        report_data: samples to report on; by default half of the evaluation data.
        report_labels: their right answers.
        eval_samples: how many evaluation samples to use; ``None`` for all.
        metrics: task metrics, as for `ptq.check`; chosen from labels and outputs if empty.
        max_drop: how much worse than the float model the task figures may be.
        min_speedup: least ratio of float time to the model's.
        max_size: largest size, as a part of the float model's (``30%``, ``0.3``) or as it is
            (``5MB``).
        time_budget: what the trials may take: seconds, or ``90s``, ``10m``, ``1h``.
        confidence: of the intervals, in 0..1.
        to_the_top: whether to try everything that the budget allows, and take the fastest that
            holds every limit.
        front: a folder for the recipe of each point on the Pareto front.
        state: the folder that keeps trials; by default one in the cache folder of `ptq`.
        on_tune: told of every step.
    """

    run: RunOptions = field(default_factory=RunOptions)
    report_data: str | None = None
    report_labels: Path | None = None
    eval_samples: int | None = None
    metrics: tuple[str, ...] = ()
    max_drop: str | float = "1%"
    min_speedup: float | None = None
    max_size: str | float | None = None
    time_budget: str | float = "10m"
    confidence: str | float = 0.95
    to_the_top: bool = False
    front: Path | None = None
    state: Path | None = None
    on_tune: Callable[[TuneProgress], None] = _ignore

    def thresholds(self, float_bytes: int) -> Thresholds:
        """Return the limits.

        Args:
            float_bytes: size of the float model.

        Raises:
            ConfigError: one of them is no number, or out of its range.
        """
        return Thresholds(
            max_drop=Drop.parse(self.max_drop),
            min_speedup=(
                None if self.min_speedup is None else ratio(self.min_speedup, "--min-speedup")
            ),
            max_size_ratio=None
            if self.max_size is None
            else size_ratio(self.max_size, float_bytes),
        )

    def level(self) -> float:
        """Return the confidence of the intervals.

        Raises:
            ConfigError: it is not between 0 and 1.
        """
        level = share(self.confidence, "--confidence")
        if not 0 < level < 1:
            raise ConfigError(f"--confidence {self.confidence} is no confidence; write 95%")
        return level

    def limits(self) -> dict[str, str]:
        """Return the limits as they were given, by option."""
        given = {
            "--max-drop": self.max_drop,
            "--min-speedup": self.min_speedup,
            "--max-size": self.max_size,
        }
        return {option: str(value) for option, value in given.items() if value is not None}


def seconds_of(given: str | float) -> float:
    """Return the seconds that ``90s``, ``10m``, ``1h`` or a plain number mean.

    Raises:
        ConfigError: it is no time, or not above 0.
    """
    found = _TIME.fullmatch(str(given).strip())
    seconds = float(found[1]) * _TIMES[found[2]] if found else 0.0
    if seconds <= 0:
        raise ConfigError(f"--time-budget '{given}' is no time above 0; write 90s, 10m or 1h")
    return seconds


def size_ratio(given: str | float, float_bytes: int) -> float:
    """Return the part of the float model's size that ``30%``, ``0.3`` or ``5MB`` mean.

    Args:
        given: what the user wrote.
        float_bytes: size of the float model.

    Raises:
        ConfigError: it is no size, or not above 0.
    """
    found = _SIZE.fullmatch(str(given).strip())
    if found is None:
        return ratio(given, "--max-size")
    size = float(found[1]) * _SIZES[found[2]]
    if size <= 0:
        raise ConfigError(f"--max-size {given} is not above 0; write 30% or 5MB")
    return size / float_bytes
