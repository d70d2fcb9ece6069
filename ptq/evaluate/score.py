"""Score both models by task metrics on the same feeds, with confidence intervals, streaming."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from ptq.data.feeds import Feed
from ptq.data.labels import Labels
from ptq.errors import ConfigError, DataError, VerificationError
from ptq.evaluate.accuracy import comparable
from ptq.metrics import Metric, Outputs, Sums
from ptq.numerics.confidence import Interval, newcombe_paired, paired_bootstrap, wilson
from ptq.runtime.session import Session, run


class Estimate(msgspec.Struct, frozen=True):
    """A figure and its confidence interval.

    Attributes:
        value: the figure; ``None`` where it is infinite (an SQNR without noise), which JSON has
            no number for.
        lo: the lower end; ``None`` if infinite, or if one unit is all there is.
        hi: the upper end, likewise.
    """

    value: float | None
    lo: float | None
    hi: float | None


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric says of both models.

    Attributes:
        metric: what `ptq.metrics.parse_metric` takes.
        title: what to call the figure.
        unit: how it reads: a ``share`` of 1, ``dB``, or a plain ``number``.
        higher_is_better: whether a larger figure is better.
        against: what the outputs were held against: ``labels``, the ``inputs`` (the next tokens
            of a text), or the outputs of the ``float`` model, whose own figure is then what equal
            outputs get.
        reference: the float model's figure.
        quantized: the quantized model's figure.
        drop: by how much the quantized model is worse, in the figure's own unit (a share, not a
            share of a share); negative if it is better.
        units: how many rows, images or lines were drawn; intervals are about other draws of so
            many.
        level: how often an interval made like this holds the true figure.
    """

    metric: str
    title: str
    unit: Literal["share", "dB", "number"]
    higher_is_better: bool
    against: Literal["labels", "inputs", "float"]
    reference: Estimate
    quantized: Estimate
    drop: Estimate
    units: int
    level: float


#: The intervals of the float figure, the quantized one, and float minus quantized.
_Intervals: TypeAlias = tuple[Interval, Interval, Interval]


def score(  # noqa: PLR0913 - two models, data, and how sure to be
    reference: Session,
    quantized: Session,
    feeds: Iterable[Feed],
    metrics: Sequence[Metric],
    *,
    labels: Labels | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    on_feed: Callable[[], None] = lambda: None,
) -> tuple[Score, ...]:
    """Run both models once on every feed, and return what each metric says.

    Memory grows with the data by a few numbers for each unit and metric (two for accuracy, five
    for an SQNR, 513 for average precision), of both models.

    Args:
        reference: the float model.
        quantized: the quantized model, with the same inputs and outputs.
        feeds: evaluation data.
        metrics: what to measure.
        labels: the right answers, in the order of the feeds, for metrics that take any.
        level: how often the intervals shall hold the true figure.
        resamples: how many times a bootstrap draws.
        seed: of the bootstrap.
        on_feed: called after each feed.

    Raises:
        VerificationError: the quantized model gives NaN or infinity where the float one does not,
            or outputs that cannot be compared.
        DataError: a model fails on a feed, there are not as many labels as rows, or there is
            nothing to judge.
        ConfigError: a metric lacks labels or takes others, or one of its options does not fit.
    """
    if not 0 < level < 1:
        raise ConfigError(f"no interval holds a figure {level:g} of the time; give 0.95")
    _require_labels(metrics, labels)
    names = [output.name for output in reference.get_outputs()]
    _require_outputs(names, quantized)
    tallies = {metric.basis: _Tally(metric, labels) for metric in metrics}
    sample = -1
    for sample, feed in enumerate(feeds):
        wanted = dict(zip(names, run(reference, feed, names, where=_WHERE), strict=True))
        got = dict(zip(names, run(quantized, feed, names, where=_WHERE), strict=True))
        _require_numbers(wanted, got, sample)
        for tally in tallies.values():
            tally.add(feed, wanted, got)
        on_feed()
    if sample < 0:
        raise DataError("there is no evaluation sample; the data must hold at least one")
    how = _Precision(level, resamples, seed)
    return tuple(tallies[metric.basis].score(metric, how) for metric in metrics)


_WHERE = "an evaluation sample"


class _Precision(msgspec.Struct, frozen=True):
    level: float
    resamples: int
    seed: int


class _Tally:
    """What metrics of one basis add up, for each unit, of both models."""

    def __init__(self, metric: Metric, labels: Labels | None) -> None:
        self.metric = metric
        self.labels = None if metric.labels == "none" else labels
        self.taken = 0
        self.told = self.labels is not None
        self.reference: list[Sums] = []
        self.quantized: list[Sums] = []

    def add(self, feed: Feed, wanted: Outputs, got: Outputs) -> None:
        labels = self.metric.truth(feed, wanted, self._take(wanted))
        self.told |= labels is not None
        self.reference.append(self.metric.measure(wanted, wanted, labels))
        self.quantized.append(self.metric.measure(got, wanted, labels))
        if self.quantized[-1].shape != self.reference[-1].shape:
            raise VerificationError(
                f"{self.metric.title}: the quantized model gives {len(self.quantized[-1])} rows, "
                f"the float model {len(self.reference[-1])}"
            )
        if self.reference[-1].shape[1] != self.reference[0].shape[1]:
            raise DataError(f"{self.metric.title}: the number of classes changes between samples")

    def _take(self, wanted: Outputs) -> Labels | None:
        """Return the labels of this feed, the next ones of all."""
        if self.labels is None:
            return None
        count = self.metric.answers(wanted)
        labels = self.labels[self.taken : self.taken + count]
        self.taken += count
        if len(labels) < count:
            raise DataError(
                f"there are {len(self.labels)} labels, and more rows in the evaluation data"
            )
        return labels

    def score(self, metric: Metric, how: _Precision) -> Score:
        """Return what a metric of this basis says."""
        if self.labels is not None and self.taken != len(self.labels):
            raise DataError(
                f"there are {len(self.labels)} labels for {self.taken} rows of evaluation data"
            )
        a, b = np.concatenate(self.reference), np.concatenate(self.quantized)
        figures = [float(metric.figure(sums.sum(axis=0))) for sums in (a, b)]
        if any(math.isnan(figure) for figure in figures):
            raise DataError(f"{metric.title}: there is nothing to judge, for {metric.empty}")
        # infinity minus infinity is no number, and is reported as none
        difference = figures[0] - figures[1]
        intervals = _intervals(metric, a, b, how, told=self.told)
        of_a, of_b, of_difference = intervals or ((math.nan, math.nan),) * 3
        if not metric.higher_is_better:
            difference, of_difference = -difference, (-of_difference[1], -of_difference[0])
        return Score(
            metric=metric.text,
            title=metric.title,
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            against="labels" if self.labels is not None else "inputs" if self.told else "float",
            reference=_estimate(figures[0], of_a),
            quantized=_estimate(figures[1], of_b),
            drop=_estimate(difference, of_difference),
            units=len(a),
            level=how.level,
        )


def _intervals(
    metric: Metric, a: Sums, b: Sums, how: _Precision, *, told: bool
) -> _Intervals | None:
    """Return the intervals, closed forms where every unit is one answer; ``None`` for one unit."""
    units = len(a)
    if units < 2:
        return None
    if metric.counts and (a[:, 1] == 1).all():
        right_a, right_b = a[:, 0] > 0, b[:, 0] > 0
        of_b = wilson(int(right_b.sum()), units, how.level)
        if not told:  # the float model agrees with itself by definition
            return (1.0, 1.0), of_b, (1.0 - of_b[1], 1.0 - of_b[0])
        both, only_a = int((right_a & right_b).sum()), int((right_a & ~right_b).sum())
        only_b = int((~right_a & right_b).sum())
        neither = units - both - only_a - only_b
        of_difference = newcombe_paired(both, only_a, only_b, neither, how.level)
        return wilson(int(right_a.sum()), units, how.level), of_b, of_difference
    rng = np.random.default_rng(how.seed)
    found = paired_bootstrap(a, b, metric.figure, how.level, how.resamples, rng)
    return found.a, found.b, found.difference


def _estimate(value: float, interval: Interval) -> Estimate:
    """Return what JSON can say; 0 has no sign."""
    return Estimate(*(x + 0.0 if math.isfinite(x) else None for x in (value, *interval)))


def _require_labels(metrics: Sequence[Metric], labels: Labels | None) -> None:
    for metric in metrics:
        if labels is None:
            if metric.labels == "required":
                raise ConfigError(
                    f"metric '{metric.text}' needs labels; give --labels, or use 'agreement'"
                )
            continue
        texts = not isinstance(labels, np.ndarray)
        if metric.labels == "none" or metric.label_kind == "any":
            continue
        if texts != (metric.label_kind == "texts"):
            raise ConfigError(
                f"metric '{metric.text}' takes {_KINDS[metric.label_kind == 'texts']} as labels, "
                f"not {_KINDS[texts]}"
            )


_KINDS = {False: "class numbers", True: "texts"}


def _require_outputs(names: Sequence[str], quantized: Session) -> None:
    have = {output.name for output in quantized.get_outputs()}
    missing = [name for name in names if name not in have]
    if missing:
        raise VerificationError(
            f"the quantized model has no output '{missing[0]}'; it has: {', '.join(sorted(have))}"
        )


def _require_numbers(wanted: Outputs, got: Outputs, sample: int) -> None:
    """Raise unless all floating-point outputs are numbers, whatever the metrics look at."""
    for name, a in wanted.items():
        b = got[name]
        if not np.issubdtype(a.dtype, np.floating):
            continue
        if a.shape == b.shape:
            comparable(name, a, b, sample)
        else:  # boxes may be of another number; a metric that cannot have that says so
            comparable(name, a, a, sample)
            comparable(name, np.zeros_like(b), b, sample)
