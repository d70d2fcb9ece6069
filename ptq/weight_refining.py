"""Refine a weight-only model by what its layers put out: its weights, then its biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ptq.data.dataset import Dataset
from ptq.data.feeds import Feed
from ptq.graph.save import to_bytes
from ptq.graph.types import Model
from ptq.graph.weight_errors import tap_weight_errors
from ptq.graph.weight_layers import bias_slot
from ptq.looked_at import LookedAt, first_feeds
from ptq.numerics.affine import QTensor
from ptq.numerics.arrays import F64
from ptq.progress import Stages
from ptq.reconstructing import Network, Reconstruction, Reconstructor, dense_layers
from ptq.refining import RefiningStep, Taken, take_steps
from ptq.report.refinement import Refinement
from ptq.rounders import Rounder
from ptq.runtime.weight_errors import mean_errors
from ptq.source import Source
from ptq.train.reconstruct import Descent
from ptq.trial import Trial
from ptq.weight_rounding import RoundedWeights, WeightRounder

#: Samples that are looked at, those included that choose; more take time, fewer cost accuracy.
_SAMPLES = 96

#: The same where it is learned whether each weight is rounded up or down: of few samples, too much.
_LEARNED_SAMPLES = 528

#: What there is before anything was looked at.
NOTHING = RoundedWeights({}, {})


@dataclass(frozen=True, slots=True)
class WeightRefiner:
    """Takes the steps that are asked for.

    Attributes:
        source: the float model.
        written: its weights as they are written, rounded to nearest, by name.
        emit: returns the model as it ships, with what was found in it.
        data: the calibration data.
        stages: told of what takes time.
        threads: within an operator.
        seed: of what is random.
    """

    source: Source
    written: Mapping[str, QTensor]
    emit: Callable[[RoundedWeights], Model]
    data: Dataset
    stages: Stages
    threads: int
    seed: int = 0

    def refine(
        self, *, rounding: Rounder | Reconstruction | None, biases: bool
    ) -> tuple[RoundedWeights, tuple[Refinement, ...]]:
        """Return what was found, and how each step went; one that does harm is not taken.

        Harm is a larger error of the output of a typical sample, among those kept out.

        With a rounding method and biases, these are corrected while weights are rounded, and then
        once more.

        Args:
            rounding: how to round weights, if not to nearest.
            biases: whether to correct biases.
        """
        learned = isinstance(rounding, str)
        count = _LEARNED_SAMPLES if learned else _SAMPLES
        looked_at = LookedAt.of(first_feeds(self.data, count))
        trial = Trial(list(looked_at.chosen_on), self.source)
        rounder = WeightRounder(self.source.model, self.source.folder, self.written, self.threads)
        feeds = looked_at.refined_on

        def rounded(method: Rounder) -> Taken[RoundedWeights]:
            with self.stages.stage("round", rounder.passes() * len(feeds)) as step:
                found = rounder.round(method, feeds, biases=biases, on_feed=step)
            return Taken(found, len(found.weights))

        def corrected(before: RoundedWeights) -> Taken[RoundedWeights]:
            shifts = self._shifts(rounder, before, feeds)
            return Taken(RoundedWeights(before.weights, shifts), len(shifts))

        steps: list[RefiningStep[RoundedWeights]] = []
        if isinstance(rounding, Rounder):
            steps.append(RefiningStep(rounding.name, lambda _: rounded(rounding)))
        elif rounding is not None:
            steps.append(
                RefiningStep(rounding, lambda _: self._reconstructed(rounder, rounding, feeds))
            )
        if biases:
            steps.append(RefiningStep("bias correction", corrected))
        return take_steps(
            steps,
            NOTHING,
            lambda found: trial.error(to_bytes(self.emit(found))),
            samples=len(feeds),
        )

    def _reconstructed(
        self, rounder: WeightRounder, how: Reconstruction, feeds: Sequence[Feed]
    ) -> Taken[RoundedWeights]:
        """Return weights with which blocks put out what they do in float."""

        def emit(found: Mapping[str, QTensor]) -> tuple[Model, Mapping[str, QTensor]]:
            return rounder.simulated(RoundedWeights(found, {})), {**self.written, **found}

        network = Network(
            self.source.model,
            self.source.folder,
            dense_layers(self.source.model, rounder.layers),
            (),
            emit,
        )
        descent = Descent(seed=self.seed)
        reconstructor = Reconstructor(network, how, feeds, descent, self.threads)
        with self.stages.stage("reconstruct", len(reconstructor.blocks())) as step:
            found = reconstructor.run(step)
        return Taken(RoundedWeights(found.weights, {}), len(found.weights), found.left)

    def _shifts(
        self, rounder: WeightRounder, before: RoundedWeights, feeds: Sequence[Feed]
    ) -> dict[str, F64]:
        slots = [bias_slot(layer) for layer in rounder.layers if layer.takes_bias]
        tapped = tap_weight_errors(self.source.model, rounder.simulated(before), slots)
        with self.stages.stage("correct", len(feeds)) as step:
            return mean_errors(
                tapped, feeds, self.source.folder, threads=self.threads, on_feed=step
            )
