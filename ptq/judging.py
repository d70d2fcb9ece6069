"""What a trial of `ptq tune` gave, and what that is worth: limits held, and how near it comes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ptq.data import Dataset
from ptq.data.labels import Labels
from ptq.embedded import EmbeddedRecipe
from ptq.evaluate.figures import Metrics, size_figure, speed_figure
from ptq.evaluate.latency import Latency
from ptq.evaluate.thresholds import Noise, Thresholds, hold
from ptq.report.check import MAX_DROP, Figure, Held
from ptq.search.climb import Outcome

#: What other values of scales, weights and biases cannot mend.
_OF_KERNELS = ("--max-size", "--min-speedup")


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a trial.

    Attributes:
        seconds: what it took.
        failed: why there is no model; empty if there is one.
        choosing: figures on the samples that choose.
        reporting: the same on the others.
        size_bytes: of the model with its external data.
        sha256: likewise.
        layers: how many nodes compute in integers.
        latency: beside the float model; ``None`` if it is for another machine.
        recipe: what makes it again; ``None`` if there is no model.
        notices: what quantizing had to say.
        placing_s: how many of the seconds went into placing and timing.
    """

    seconds: float
    failed: str = ""
    choosing: tuple[Figure, ...] = ()
    reporting: tuple[Figure, ...] = ()
    size_bytes: int = 0
    sha256: str = ""
    layers: int = 0
    latency: Latency | None = None
    recipe: EmbeddedRecipe | None = None
    notices: tuple[str, ...] = ()
    placing_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """Samples to measure on.

    Attributes:
        data: the feeds.
        labels: right answers, if there are any.
        digest: of the feeds, and of the labels.
        count: how many feeds there are.
    """

    data: Dataset
    labels: Labels | None
    digest: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What figures are held against.

    Attributes:
        metrics: what is measured on samples.
        thresholds: the limits.
        confidence: of the intervals, in 0..1.
        float_bytes: size of the float model.
    """

    metrics: Metrics
    thresholds: Thresholds
    confidence: float
    float_bytes: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the figures that ``--max-drop`` holds."""
        return tuple(metric.text for metric in self.metrics.tasks)

    def outcome(self, trial: Trial) -> Outcome:
        """Return what the search is to know of a trial: nothing of the samples to report on."""
        if trial.failed:
            return Outcome(trial.seconds, failed=trial.failed)
        missed = [held for held in self.held(trial) if held.verdict == "missed"]
        return Outcome(
            trial.seconds,
            merit=self.merit(trial),
            missed=len(missed),
            beyond_repair=any(h.option in _OF_KERNELS and h.certain for h in missed),
            placing_s=trial.placing_s,
        )

    def held(self, trial: Trial) -> tuple[Held, ...]:
        """Return each limit on the samples that choose, every figure counted as measured."""
        return self._held(trial, trial.choosing, "fail")

    def reported(self, trial: Trial) -> tuple[Held, ...]:
        """Return the drop held on the samples to report on; missed is what is so for certain."""
        return tuple(h for h in self._held(trial, trial.reporting, "pass") if h.option == MAX_DROP)

    def merit(self, trial: Trial) -> float:
        """Return how far a model is from the float one on the samples that choose; less is better.

        Where the task counts right answers, the noise of the outputs over the signal: a share of
        few answers is too coarse to tell settings from one another. Otherwise the drop of the task
        figures, the largest in parts of its limit.
        """
        named = {figure.name: figure for figure in trial.choosing}
        tasks = [named[task] for task in self.tasks]
        if any(figure.step for figure in tasks) and "sqnr" in named:
            decibels = named["sqnr"].value
            return 0.0 if decibels is None else float(10.0 ** (-decibels / 10))
        limit = self.thresholds.max_drop
        allowed = [limit.of(figure) if limit is not None else 0.0 for figure in tasks]
        drops = [(f.drop or 0.0) / (a or 1.0) for f, a in zip(tasks, allowed, strict=True)]
        return max(drops, default=math.inf)

    def _held(self, trial: Trial, sampled: tuple[Figure, ...], noise: Noise) -> tuple[Held, ...]:
        speed = () if trial.latency is None else (speed_figure(trial.latency),)
        figures = (*sampled, size_figure(self.float_bytes, trial.size_bytes), *speed)
        found = hold(figures, self.tasks, self.thresholds, noise=noise, confidence=self.confidence)
        return tuple(
            msgspec.structs.replace(h, option="--max-size") if h.figure == "size_bytes" else h
            for h in found
        )


@dataclass(frozen=True, slots=True, eq=False)
class Samplings:
    """What every trial is measured on.

    Attributes:
        reference: the float file to measure against.
        choosing: samples that choose.
        reporting: samples that nothing is chosen with.
    """

    reference: Path
    choosing: Half
    reporting: Half
