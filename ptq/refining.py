"""Refine a quantized model by looking at what its layers put out: its weights, then its biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ptq.data.feeds import Feed
from ptq.graph.biases import bias_slots
from ptq.graph.expected_errors import expected_errors
from ptq.graph.norms import NormTweak
from ptq.graph.site import Site, Sites
from ptq.graph.types import Model
from ptq.graph.weight_errors import tap_weight_errors
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F64
from ptq.plan import Decision
from ptq.progress import Stages
from ptq.report.refinement import Refinement, Step
from ptq.rounding import Halves, layer_by_layer, passes, round_weights
from ptq.runtime.weight_errors import mean_errors
from ptq.source import Source
from ptq.tweaking import norm_tweaks
from ptq.tweaking import passes as tweak_passes


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """What looking at the outputs of layers found.

    Attributes:
        factors: what the ranges of weights are multiplied by, by name of the weight.
        weights: codes of weights, likewise.
        shifts: what to add to biases, by node.
        norms: how layer norms are tweaked, by their name.
        given: weights with codes and scales of their own, by name: a trained model brings both.
        decisions: how activations are quantized in place of what is planned, by tensor; what
            shares their codes follows (`ptq.plan.replace`).
    """

    factors: Mapping[str, F64] = field(default_factory=dict)
    weights: Mapping[str, QTensor] = field(default_factory=dict)
    shifts: Mapping[str, F64] = field(default_factory=dict)
    norms: Mapping[str, NormTweak] = field(default_factory=dict)
    given: Mapping[str, QTensor] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)


#: Returns the quantized model with this in it, and its weights.
Emit = Callable[[Refined], tuple[Model, Mapping[str, QTensor]]]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RefiningStep(Generic[T]):
    """One way of making a quantized model better.

    Attributes:
        name: of it.
        take: returns what it makes of what was found before, and how many layers it changed.
    """

    name: Step
    take: Callable[[T], tuple[T, int]]


def take_steps(
    steps: Sequence[RefiningStep[T]],
    start: T,
    error: Callable[[T], float],
    *,
    samples: int,
    labelled: bool = False,
) -> tuple[T, tuple[Refinement, ...]]:
    """Return what was found, and how each step went; one that does harm is not taken.

    Args:
        steps: in this order.
        start: what there is to begin with.
        error: the relative squared error of the outputs of the network with it.
        samples: on how many the steps look.
        labelled: whether the error is a share of wrong answers.
    """
    best, least = start, error(start)
    done: list[Refinement] = []
    for step in steps:
        found, layers = step.take(best)
        after = error(found)
        done.append(
            Refinement(
                step=step.name,
                layers=layers,
                samples=samples,
                before_db=None if labelled else _decibels(least),
                after_db=None if labelled else _decibels(after),
                kept=after < least,
                top1=(1.0 - least, 1.0 - after) if labelled else None,
            )
        )
        if after < least:
            best, least = found, after
    return best, tuple(done)


@dataclass(frozen=True, slots=True)
class Refiner:
    """Takes the steps that are asked for.

    Attributes:
        source: the float model.
        sites: what becomes integer.
        emit: quantizes it.
        choose: the factors of the range of one layer's weight, or ``None`` if its range stays.
        error: that of the outputs of a quantized model (`OutputScore.error`), on other samples.
        feeds: calibration samples to look at.
        stages: told of what takes time.
        threads: within an operator.
        means: of channels of tensors, where they are known without samples.
        labelled: whether the error is a share of wrong answers.
    """

    source: Source
    sites: Sites
    emit: Emit
    choose: Callable[[Site, QTensor, Halves], F64 | None]
    error: Callable[[Model], float]
    feeds: Sequence[Feed]
    stages: Stages
    threads: int
    means: Mapping[str, F64] = field(default_factory=dict)
    labelled: bool = False

    def refine(
        self,
        *,
        ranges: bool,
        gptq: bool,
        biases: bool,
        norms: bool = False,
        train: Callable[[Refined], tuple[Refined, int]] | None = None,
    ) -> tuple[Refined, tuple[Refinement, ...]]:
        """Return what was found, and how each step went; one that does harm is not taken.

        Args:
            ranges: whether to choose ranges of weights by the outputs of their layers.
            gptq: whether to round weights by GPTQ.
            biases: whether to correct biases.
            norms: whether to tweak layer norms.
            train: trains what was found, if that is wanted.
        """
        steps: list[RefiningStep[Refined]] = []
        if ranges:
            steps.append(RefiningStep("seqmse", self._shrunk))
        if gptq:
            steps.append(RefiningStep("gptq", self._rounded))
        if biases:
            steps.append(RefiningStep("bias correction", self._corrected))
        if norms:
            steps.append(RefiningStep("norm tweaking", self._tweaked))
        if train is not None:
            steps.append(RefiningStep("fine-tuning", train))
        return take_steps(
            steps,
            Refined(),
            lambda refined: self.error(self.emit(refined)[0]),
            samples=len(self.feeds),
            labelled=self.labelled,
        )

    def _shrunk(self, before: Refined) -> tuple[Refined, int]:
        """Return factors of the ranges of weights, and of how many weights they are."""

        def emit(found: Mapping[str, F64 | None]) -> tuple[Model, Mapping[str, QTensor]]:
            return self.emit(replace(before, factors=_known(found)))

        with self.stages.stage("round", passes(self.sites) * len(self.feeds)) as step:
            found = layer_by_layer(
                self.sites,
                emit,
                self.choose,
                self.feeds,
                self.source.folder,
                threads=self.threads,
                on_feed=step,
            )
        factors = _known(found)
        return replace(before, factors=factors), len(factors)

    def _rounded(self, before: Refined) -> tuple[Refined, int]:
        """Return weights rounded by GPTQ, and how many they are."""
        with self.stages.stage("round", passes(self.sites) * len(self.feeds)) as step:
            weights = round_weights(
                self.sites,
                lambda rounded: self.emit(replace(before, weights=rounded)),
                self.feeds,
                self.source.folder,
                threads=self.threads,
                on_feed=step,
            )
        return replace(before, weights=weights), len(weights)

    def _corrected(self, before: Refined) -> tuple[Refined, int]:
        """Return what to add to biases, and to how many."""
        quantized, _ = self.emit(before)
        tapped = tap_weight_errors(self.source.model, quantized, bias_slots(self.sites))
        with self.stages.stage("correct", len(self.feeds)) as step:
            shifts = mean_errors(
                tapped, self.feeds, self.source.folder, threads=self.threads, on_feed=step
            )
        known = expected_errors(self.source.model, quantized, bias_slots(self.sites), self.means)
        shifts = {**shifts, **known}
        return replace(before, shifts=shifts), len(shifts)

    def _tweaked(self, before: Refined) -> tuple[Refined, int]:
        """Return how layer norms are tweaked, and how many."""
        model = self.source.model
        with self.stages.stage("tweak", tweak_passes(model) * len(self.feeds)) as step:
            norms = norm_tweaks(
                model,
                lambda found: self.emit(replace(before, norms=found))[0],
                self.feeds,
                self.source.folder,
                threads=self.threads,
                on_feed=step,
            )
        return replace(before, norms=norms), len(norms)


def _known(found: Mapping[str, F64 | None]) -> dict[str, F64]:
    return {weight: factors for weight, factors in found.items() if factors is not None}


def _decibels(error: float) -> float | None:
    """Return a relative squared error as an SQNR; ``None`` if there is none."""
    return -10.0 * math.log10(error) if error > 0.0 else None
