"""QCode by the network's own error: move each power-of-two scale up or down while the output gains.

Reference: the accuracy-aware variant of truncation without retraining, as the survey of quantized
CNNs describes it (ALGORITHMS B7 c): a coordinate search over the exponents, started from the
layer-wise optimum. The metric is the error of the outputs, which needs no labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptq.calib import Range
from ptq.data.feeds import Feed
from ptq.graph.scales import ScaledModel
from ptq.plan import Decision
from ptq.runtime.session import open_session, run
from ptq.search.output_error import OutputScore

#: Sweeps over all tensors; the search nearly always stops by itself after two.
_MAX_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class QCodeResult:
    """What the search found.

    Attributes:
        ranges: the chosen range of every tensor searched.
        start_error: output error of the layer-wise choice (`OutputScore`).
        error: the same after the search; never larger.
        evaluations: how often the network's error was measured.
    """

    ranges: dict[str, Range]
    start_error: float
    error: float
    evaluations: int


def search_exponents(
    scaled: ScaledModel,
    decisions: Mapping[str, Decision],
    score: OutputScore,
    feeds: Sequence[Feed],
    *,
    keep: Collection[str] = (),
    on_tensor: Callable[[], None] = lambda: None,
) -> QCodeResult:
    """Return the exponents that a coordinate search over the output error arrives at.

    Costs two evaluations of all feeds for each tensor and sweep.

    Args:
        scaled: the quantized model whose activation scales are inputs.
        decisions: the layer-wise choice, with power-of-two scales.
        score: compares with the float model's outputs on the feeds.
        feeds: what to measure on; the fewer, the more the result fits just them.
        keep: tensors whose scale stays as it is, whoever shares it.
        on_tensor: called after each tensor of a sweep.
    """
    search = _Search(scaled, score, feeds)
    turned = {n: d for n, d in decisions.items() if n in scaled.inputs and d.observed not in keep}
    groups = _groups(turned)
    scales = {name: d.scale for name, d in decisions.items()}
    start = best = search.error(scales)
    for _ in range(_MAX_SWEEPS):
        improved = False
        for group in groups:
            for factor in (0.5, 2.0):
                trial = {**scales, **{name: scales[name] * factor for name in group}}
                error = search.error(trial, limit=best)
                if error < best:
                    best, scales, improved = error, trial, True
            on_tensor()
        if not improved:
            break
    ranges = {name: _range(scales[name] / d.scale, d) for name, d in decisions.items()}
    return QCodeResult(ranges, start, best, search.evaluations)


def _groups(decisions: Mapping[str, Decision]) -> list[list[str]]:
    """Tensors that share a scale move together."""
    groups: dict[str, list[str]] = {}
    for name, decision in decisions.items():
        groups.setdefault(decision.observed, []).append(name)
    return list(groups.values())


def _range(factor: float, decision: Decision) -> Range:
    return Range(decision.lo * factor, decision.hi * factor)


class _Search:
    """Measures the error of the outputs for given scales."""

    def __init__(
        self,
        scaled: ScaledModel,
        score: OutputScore,
        feeds: Sequence[Feed],
    ) -> None:
        # the scales are inputs, so that nothing can be fused anyway: this is simulation
        self.session = open_session(scaled.model, optimization="basic", folder=scaled.folder)
        self.inputs = scaled.inputs
        self.outputs = scaled.outputs
        self.score = score
        self.feeds = feeds
        self.evaluations = 0

    def error(self, scales: Mapping[str, float], *, limit: float = math.inf) -> float:
        """Return noise over signal, or infinity as soon as it is certain to exceed the limit."""
        self.evaluations += 1
        given = {
            tensor: np.asarray(scales[name], np.float32) for name, tensor in self.inputs.items()
        }
        found = (
            run(self.session, {**feed, **given}, self.outputs, where="a calibration sample")
            for feed in self.feeds
        )
        return self.score.error(found, limit=limit)
