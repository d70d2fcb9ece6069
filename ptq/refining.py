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
from ptq.numerics.arrays import F32, F64
from ptq.plan import Decision
from ptq.progress import Stages
from ptq.reconstructing import Network, Reconstruction, Reconstructor, layers_of
from ptq.report.refinement import Refinement
from ptq.rounders import Rounder
from ptq.rounding import Halves, layer_by_layer, passes, round_weights
from ptq.runtime.weight_errors import mean_errors
from ptq.source import Source
from ptq.train.block_graph import FakeActivation
from ptq.train.reconstruct import Descent
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
        latent: float weights that training goes on from, in place of the model's, by name.
        decisions: how activations are quantized in place of what is planned, by tensor; what
            shares their codes follows (`ptq.plan.replace`).
    """

    factors: Mapping[str, F64] = field(default_factory=dict)
    weights: Mapping[str, QTensor] = field(default_factory=dict)
    shifts: Mapping[str, F64] = field(default_factory=dict)
    norms: Mapping[str, NormTweak] = field(default_factory=dict)
    given: Mapping[str, QTensor] = field(default_factory=dict)
    latent: Mapping[str, F32] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)


#: Returns the quantized model with this in it, and its weights.
Emit = Callable[[Refined], tuple[Model, Mapping[str, QTensor]]]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """What a step found.

    Attributes:
        found: with what was found before.
        layers: how many layers it changed.
        left: the layers that it could not change, with the reason.
    """

    found: T
    layers: int
    left: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefiningStep(Generic[T]):
    """One way of making a quantized model better.

    Attributes:
        name: of it.
        take: returns what it makes of what was found before.
    """

    name: str
    take: Callable[[T], Taken[T]]


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
        taken = step.take(best)
        after = error(taken.found)
        done.append(
            Refinement(
                step=step.name,
                layers=taken.layers,
                samples=samples,
                before_db=None if labelled else _decibels(least),
                after_db=None if labelled else _decibels(after),
                kept=after < least,
                top1=(1.0 - least, 1.0 - after) if labelled else None,
                left=dict(taken.left),
            )
        )
        if after < least:
            best, least = taken.found, after
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
        activations: what is quantized beside weights.
        seed: of what is random.
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
    activations: Sequence[FakeActivation] = ()
    seed: int = 0
    labelled: bool = False

    def refine(
        self,
        *,
        ranges: bool,
        rounding: Rounder | Reconstruction | None,
        biases: bool,
        norms: bool = False,
        train: Callable[[Refined], Taken[Refined]] | None = None,
    ) -> tuple[Refined, tuple[Refinement, ...]]:
        """Return what was found, and how each step went; one that does harm is not taken.

        Args:
            ranges: whether to choose ranges of weights by the outputs of their layers.
            rounding: how to round weights, if not to nearest.
            biases: whether to correct biases.
            norms: whether to tweak layer norms.
            train: trains what was found, if that is wanted.
        """
        steps: list[RefiningStep[Refined]] = []
        if ranges:
            steps.append(RefiningStep("seqmse", self._shrunk))
        if rounding is not None:
            steps.append(self._rounding(rounding))
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

    def _shrunk(self, before: Refined) -> Taken[Refined]:
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
        return Taken(replace(before, factors=factors), len(factors))

    def _rounding(self, how: Rounder | Reconstruction) -> RefiningStep[Refined]:
        """Return the step that rounds weights."""
        if isinstance(how, Rounder):
            return RefiningStep(how.name, lambda before: self._rounded(before, how))
        return RefiningStep(how, lambda before: self._reconstructed(before, how))

    def _rounded(self, before: Refined, method: Rounder) -> Taken[Refined]:
        """Return weights rounded by what layers read, and how many they are."""
        with self.stages.stage("round", passes(self.sites) * len(self.feeds)) as step:
            weights = round_weights(
                self.sites,
                lambda rounded: self.emit(replace(before, weights=rounded)),
                method,
                self.feeds,
                self.source.folder,
                threads=self.threads,
                on_feed=step,
            )
        return Taken(replace(before, weights=weights), len(weights))

    def _reconstructed(self, before: Refined, how: Reconstruction) -> Taken[Refined]:
        """Return weights with which blocks put out what they do in float."""
        network = Network(
            self.source.model,
            self.source.folder,
            layers_of(self.sites),
            self.activations,
            lambda found: self.emit(replace(before, weights={**before.weights, **found})),
        )
        descent = Descent(seed=self.seed)
        reconstructor = Reconstructor(network, how, self.feeds, descent, self.threads)
        with self.stages.stage("reconstruct", len(reconstructor.blocks())) as step:
            found = reconstructor.run(step)
        weights = {**before.weights, **found.weights}
        return Taken(replace(before, weights=weights), len(found.weights), found.left)

    def _corrected(self, before: Refined) -> Taken[Refined]:
        """Return what to add to biases, and to how many."""
        quantized, _ = self.emit(before)
        tapped = tap_weight_errors(self.source.model, quantized, bias_slots(self.sites))
        with self.stages.stage("correct", len(self.feeds)) as step:
            shifts = mean_errors(
                tapped, self.feeds, self.source.folder, threads=self.threads, on_feed=step
            )
        known = expected_errors(self.source.model, quantized, bias_slots(self.sites), self.means)
        shifts = {**shifts, **known}
        return Taken(replace(before, shifts=shifts), len(shifts))

    def _tweaked(self, before: Refined) -> Taken[Refined]:
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
        return Taken(replace(before, norms=norms), len(norms))


def _known(found: Mapping[str, F64 | None]) -> dict[str, F64]:
    return {weight: factors for weight, factors in found.items() if factors is not None}


def _decibels(error: float) -> float | None:
    """Return a relative squared error as an SQNR; ``None`` if there is none."""
    return -10.0 * math.log10(error) if error > 0.0 else None
