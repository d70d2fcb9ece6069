"""Figures of a quantized model that a threshold can hold, made from what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptq.evaluate.latency import Latency
from ptq.evaluate.score import Score
from ptq.metrics import Metric, parse_metric
from ptq.metrics.class_scores import scores_index
from ptq.report.check import Figure
from ptq.runtime.layer import Layer, count_layers

#: The metric of the task, by what the labels are.
_TASKS = {"classes": "topk", "texts": "cer"}

_AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True)
class Metrics:
    """What to measure on samples.

    Attributes:
        tasks: metrics of what the model is for.
        general: metrics of how far its outputs are from the float model's.
    """

    tasks: tuple[Metric, ...]
    general: tuple[Metric, ...]

    def all(self) -> tuple[Metric, ...]:
        """Return each once, tasks first."""
        return tuple({metric.text: metric for metric in (*self.tasks, *self.general)}.values())


def choose_metrics(
    given: Sequence[str], label_kind: str, outputs: Mapping[str, np.ndarray]
) -> Metrics:
    """Return what to measure.

    Args:
        given: metrics that the user named, which are the task's.
        label_kind: ``classes``, ``texts``, or empty without labels.
        outputs: the float model's outputs on a feed.

    Returns:
        As task top-1 for labels that are classes, the character error rate for texts, agreement if
        an output looks like class scores, and otherwise none; in general SQNR, cosine and such an
        agreement.

    Raises:
        ConfigError: there is no such metric or option.
    """
    arrays = list(outputs.values())
    general = []
    if scores_index(arrays, told=label_kind == "classes") is not None:
        general.append(_AGREEMENT)
    if any(np.issubdtype(array.dtype, np.floating) for array in arrays):
        general += ["sqnr", "cosine"]
    tasks = list(given)
    if not given:
        tasks = [_TASKS[label_kind]] if label_kind else general[:1]
        tasks = [name for name in tasks if name not in ("sqnr", "cosine")]
    return Metrics(tuple(map(parse_metric, tasks)), tuple(map(parse_metric, general)))


def sampled_figure(metric: Metric, score: Score) -> Figure:
    """Return the figure of a metric."""
    return Figure(
        name=score.metric,
        title=score.title,
        unit=score.unit,
        higher_is_better=score.higher_is_better,
        value=score.quantized.value,
        lo=score.quantized.lo,
        hi=score.quantized.hi,
        reference=score.reference.value,
        drop=score.drop.value,
        drop_lo=score.drop.lo,
        drop_hi=score.drop.hi,
        units=score.units,
        step=_step(metric, score),
    )


def _step(metric: Metric, score: Score) -> float:
    """Return what one unit is worth, of a share that counts units: whole ones are right."""
    right = (score.quantized.value or 0.0) * score.units
    return 1 / score.units if metric.counts and math.isclose(right, round(right)) else 0.0


def size_figure(before: int, after: int) -> Figure:
    """Return the figure of the sizes of both models, in bytes with external data."""
    return Figure(
        name="size_bytes",
        title="size",
        unit="bytes",
        higher_is_better=False,
        value=after,
        reference=before,
    )


def integer_figure(layers: Sequence[Layer]) -> Figure:
    """Return the figure of the share of kernels that compute in integers."""
    integer, total = count_layers(layers)
    return Figure(
        name="integer_kernels",
        title="integer kernels",
        unit="share",
        higher_is_better=True,
        value=integer / total if total else 0.0,
        note=f"{integer} of {total} that onnxruntime runs for the file",
    )


def speed_figure(latency: Latency) -> Figure:
    """Return the figure of the speed-up, with its spread as interval."""
    float_ms, own_ms = latency.reference.median_ms, latency.quantized.median_ms
    return Figure(
        name="speedup",
        title="speed-up",
        unit="factor",
        higher_is_better=True,
        value=latency.speedup,
        lo=latency.speedup / latency.spread,
        hi=latency.speedup * latency.spread,
        note=(
            f"{float_ms:.3g} ms to {own_ms:.3g} ms with {latency.threads} "
            f"thread{'s' if latency.threads > 1 else ''} "
            f"(n={latency.rounds}; float against itself {latency.control:.2f}x)"
        ),
    )
