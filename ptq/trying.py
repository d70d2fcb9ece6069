"""Trials of `ptq tune`: quantize with some settings and measure it, or remember what it gave."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import msgspec

from ptq import __version__
from ptq.calibration import Calibration
from ptq.config import QuantizeConfig
from ptq.data.dataset import evenly_spaced
from ptq.data.held_feeds import HeldFeeds
from ptq.embedded import PinnedPlacement, read_recipe
from ptq.errors import CalibrationError, ConfigError, ModelError, PtqError, VerificationError
from ptq.evaluate.latency import measure_latency
from ptq.graph.load import model_digest, model_files
from ptq.graph.publish import Draft
from ptq.graph.rescale.record import Rescaling
from ptq.inputs import Inputs
from ptq.judging import Half, Judge, Samplings, Trial
from ptq.options import RunOptions
from ptq.progress import Stages
from ptq.report import Report
from ptq.run import Job, Run
from ptq.runtime.host import host_key
from ptq.runtime.session import open_session
from ptq.sampling import Samples, measure
from ptq.search.climb import Outcome, Step
from ptq.search.trial_store import TrialStore
from ptq.sensing import SensitivityOptions, sensitivity
from ptq.source import Source
from ptq.transforming import transformed

#: Samples on which a trial is proved to run, before it is measured on all.
_PROVED = 4

#: Where the kernels are those of another trial its times hold; what is timed then is thrown away.
_AN_INSTANT = 0.02

#: Stages that a trial with a given placement does not have.
_OF_PLACING = ("protect", "place", "profile", "time")

#: Layers are measured on at most so many samples, in at most this part of the time that is left.
_SENSED, _SENSING_SHARE = 8, 0.5

#: What an inference with switches takes, in times that of the float model (docs/sensitivity.md).
_SWITCHED = 3.0


class NoChangeError(PtqError):
    """A trial would measure the model that it started from once more."""


class Ranked(msgspec.Struct, frozen=True):
    """Layers by the noise that leaving them in float spares, the worst first.

    Attributes:
        layers: names of those that spare any.
        seconds: what it took to tell.
    """

    layers: tuple[str, ...]
    seconds: float


#: What says that there is no such model, and will say it again.
_FAILURES = (CalibrationError, ConfigError, ModelError, NoChangeError, VerificationError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """What is the same in all trials.

    Attributes:
        source: the float model, prepared.
        calibration: the calibration data, with the digest of its feeds.
        samplings: what accuracy is measured on.
        judge: what it is held against.
        options: where the winner goes, threads, seconds to time, how images are prepared. Trials
            are made in hidden folders beside the winner's place.
    """

    source: Source
    calibration: Half
    samplings: Samplings
    judge: Judge
    options: RunOptions


class Bench:
    """Tries settings, or remembers what they gave.

    Attributes:
        trials: what was tried, by the number of the step.
        remembered: numbers of the steps that earlier runs had measured.
    """

    def __init__(
        self,
        setup: Setup,
        store: TrialStore,
        stack: ExitStack,
        on_trial: Callable[[int, str], None] = lambda *_: None,
    ) -> None:
        """Try nothing yet.

        Args:
            setup: what is the same in all trials.
            store: what earlier runs measured.
            stack: removes what trials wrote.
            on_trial: told the number of each trial, and what is in it, before it begins.
        """
        self.setup = setup
        self.store = store
        self.trials: dict[int, Trial] = {}
        self.remembered: set[int] = set()
        self._stack = stack
        self._on_trial = on_trial
        self._nearest: tuple[tuple[float, float], int, Draft] | None = None
        self._ranked: Ranked | None = None
        self._owed_s = 0.0
        self._observed: tuple[bytes, Calibration] | None = None

    # -- what the search asks -------------------------------------------------------------------

    def outcome(self, number: int, step: Step) -> Outcome:
        """Return what settings give, measured or remembered."""
        assert step.config is not None
        self._on_trial(number, " + ".join(step.path))
        base = None if step.started is None else self.trials[step.started]
        placement = None
        if base is not None and base.recipe is not None and not step.rung.kernels:
            placement = base.recipe.placement
        what = "trial" if step.rung.quantizes else "float"
        key = self._key(what, step.config, placement)
        trial, draft = self.store.get(key, Trial), None
        if trial is not None:
            self.remembered.add(number)
        else:
            trial, draft = self._measured(step, placement)
            self.store.put(key, trial)
        self._owed_s = 0.0
        if base is not None and placement is not None and not trial.failed:
            trial = msgspec.structs.replace(trial, latency=base.latency)
        self.trials[number] = trial
        found = self.setup.judge.outcome(trial)
        if draft is not None:
            self._keep_nearest(number, found, draft)
        return found

    def worst_layers(
        self, config: QuantizeConfig, count: int, seconds: float
    ) -> tuple[str, ...] | None:
        """Return the layers that do the most damage; measured once, with the first settings."""
        if self._ranked is None:
            plain = msgspec.structs.replace(config, rounding="nearest", bias_correct=False)
            if plain.solver().runs_network:  # a search that says nothing of single layers
                plain = msgspec.structs.replace(plain, calib=QuantizeConfig().calib)
            samples = self._affordable_samples(seconds)
            if samples < 1:
                return None
            key = self._key("layers", plain, samples)
            ranked = self.store.get(key, Ranked)
            if ranked is None:
                ranked = self._rank(plain, samples)
                self.store.put(key, ranked)
            self._ranked, self._owed_s = ranked, ranked.seconds
        return self._ranked.layers[:count]

    def draft(self, number: int) -> Draft:
        """Return the model of a step: as it was written for its trial, or made again."""
        if self._nearest is not None and self._nearest[1] == number:
            return self._nearest[2]
        recipe, draft = self.trials[number].recipe, self._draft()
        if recipe is None:
            self._copy(draft)
        else:
            self._run(recipe.config, draft, recipe.placement)
        return draft

    # -- one trial ------------------------------------------------------------------------------

    def _measured(
        self, step: Step, placement: PinnedPlacement | None
    ) -> tuple[Trial, Draft | None]:
        """Return what a step gives, and the model if there is one."""
        began, draft = time.perf_counter() - self._owed_s, self._draft()
        try:
            trial = self._tried(step, draft, placement)
        except _FAILURES as error:
            _remove(draft)
            return Trial(seconds=time.perf_counter() - began, failed=str(error)), None
        return msgspec.structs.replace(trial, seconds=time.perf_counter() - began), draft

    def _tried(self, step: Step, draft: Draft, placement: PinnedPlacement | None) -> Trial:
        if not step.rung.quantizes:
            return self._float(draft)
        assert step.config is not None
        step.config.require_known()
        report = self._run(step.config, draft, placement, asked=step.rung.changes)
        found = self._proved(draft, simulated=report.latency is None)
        return msgspec.structs.replace(
            found,
            layers=sum(report.integer_nodes.values()),
            latency=report.latency,
            recipe=read_recipe(draft.path),
            notices=report.notices,
            placing_s=sum(report.stages_s.get(stage, 0.0) for stage in _OF_PLACING),
        )

    def _float(self, draft: Draft) -> Trial:
        """Return what the float model gives, measured like any other."""
        self._copy(draft)
        samplings = self.setup.samplings
        latency = measure_latency(
            partial(open_session, samplings.reference),
            partial(open_session, draft.path),
            next(iter(samplings.choosing.data)),
            threads=1,
            seconds=self.setup.options.seconds,
        )
        return msgspec.structs.replace(self._proved(draft, simulated=False), latency=latency)

    def _copy(self, draft: Draft) -> None:
        """Write the float model: the user's file, or as it was prepared where that has others."""
        source = self.setup.source
        if len(model_files(source.path)) > 1:
            draft.save(source.model)
        else:
            shutil.copyfile(source.path, draft.path)

    def _proved(self, draft: Draft, *, simulated: bool) -> Trial:
        """Return the figures of a model on all samples, and its size."""
        samplings, judge = self.setup.samplings, self.setup.judge
        figures = []
        for half in (samplings.choosing, samplings.reporting):
            samples = Samples(
                samplings.reference,
                draft.path,
                half.data,
                half.labels,
                judge.metrics,
                next(iter(half.data)),
                simulated=simulated,
            )
            sampled = measure(
                samples,
                threads=self.setup.options.threads,
                confidence=judge.confidence,
                required=(),
                stages=Stages(self.setup.options.on_progress),
            )
            figures.append(sampled.figures)
        return Trial(
            seconds=0.0,
            choosing=figures[0],
            reporting=figures[1],
            size_bytes=draft.size_bytes,
            sha256=model_digest(draft.path),
        )

    def _run(
        self,
        config: QuantizeConfig,
        draft: Draft,
        placement: PinnedPlacement | None,
        asked: Collection[str] = (),
    ) -> Report:
        """Quantize into a draft; where a placement is given, only an instant is timed.

        Args:
            config: the settings.
            draft: where to.
            placement: what was decided by measuring; ``None`` to measure.
            asked: settings that are to do something: if they do not, the model is the one before.

        Raises:
            NoChangeError: it is.
        """
        setup = self.setup
        seconds = setup.options.seconds if placement is None else _AN_INSTANT
        options = replace(setup.options, placement=placement, seconds=seconds, on_slower="write")
        choosing = setup.samplings.choosing.data
        proved = HeldFeeds(list(islice(iter(choosing), _PROVED)), setup.source.inputs)
        data = setup.calibration.data
        images = options.images if data.kind == "images" else None
        inputs = Inputs(data, evaluation=proved, images=images)
        stages = Stages(options.on_progress)
        source = transformed(setup.source, inputs, config, stages, threads=options.threads)
        _require_change(source.rescaling, asked, source.prepared)
        run = Run(Job(source, inputs, config, stages, options, unchanged=setup.source))
        self._share(run, source, config, placement)
        report = run.write([draft])
        steps = report.refinements
        refining = bool({"rounding", "bias_correct"} & {*asked})
        if refining and steps and not any(step.kept for step in steps):
            raise NoChangeError("nothing changes: the outputs were worse with it")
        self._share(run, source, config, read_recipe(draft.path).placement)
        return report

    def _share(
        self, run: Run, source: Source, config: QuantizeConfig, placement: PinnedPlacement | None
    ) -> None:
        """Give a run the statistics of an earlier one, or keep its own.

        Only of the same tensors of the same model, read in the same places: onnxruntime fuses by
        what is read, and the last bit of a value depends on that.
        """
        if run.static is None or placement is None:
            return
        about = [
            *(config.op_types, config.exclude, config.place, config.overrides, config.target),
            *(config.power_of_two, config.sample_size, config.ema_decay, placement),
            source.rescaling,
        ]
        key = msgspec.json.encode(about, order="sorted")
        if run.static.calibration is not None:
            self._observed = key, run.static.calibration
        elif self._observed is not None and self._observed[0] == key:
            run.static.calibration = self._observed[1]

    def _draft(self) -> Draft:
        assert self.setup.options.output is not None
        return self._stack.enter_context(Draft(self.setup.options.output))

    def _keep_nearest(self, number: int, found: Outcome, draft: Draft) -> None:
        """Keep the model that misses the fewest limits, which may be the winner; remove another."""
        rank = (found.missed, found.merit)
        if self._nearest is not None and self._nearest[0] <= rank:
            _remove(draft)
            return
        if self._nearest is not None:
            _remove(self._nearest[2])
        self._nearest = rank, number, draft

    # -- layers ---------------------------------------------------------------------------------

    def _affordable_samples(self, seconds: float) -> int:
        """Return on how many samples layers can be measured in a part of that time."""
        first = self.trials[0]
        if first.latency is None or not first.layers:
            return 0
        inferences = 2 * first.layers + 1
        each = _SWITCHED * first.latency.reference.median_ms / 1e3 / self.setup.options.threads
        return min(_SENSED, int(_SENSING_SHARE * seconds / (inferences * each)))

    def _rank(self, config: QuantizeConfig, samples: int) -> Ranked:
        began = time.perf_counter()
        data = self.setup.samplings.choosing.data
        chosen = set(evenly_spaced(self.setup.samplings.choosing.count, samples))
        feeds = [feed for i, feed in enumerate(data) if i in chosen]
        options = replace(
            self.setup.options,
            evaluation=HeldFeeds(feeds, self.setup.source.inputs),
            output=None,
        )
        found = sensitivity(
            self.setup.source.path,
            self.setup.calibration.data,
            config,
            SensitivityOptions(run=options, trial_samples=len(feeds)),
        )
        worst = sorted(found.layers, key=lambda layer: -layer.spared)
        names = tuple(layer.name for layer in worst if layer.spared > 0)
        return Ranked(names, time.perf_counter() - began)

    def _key(self, what: str, config: QuantizeConfig, more: object) -> str:
        """Return the digest of everything that a result depends on."""
        setup = self.setup
        judge, samplings = setup.judge, setup.samplings
        digests = [h.digest for h in (setup.calibration, samplings.choosing, samplings.reporting)]
        metrics = [metric.text for metric in judge.metrics.all()]
        about = [what, __version__, host_key(), setup.source.digest, *digests, metrics]
        measured = [judge.confidence, setup.options.seconds]
        return self.store.key([*about, *measured, config, more])


def _require_change(done: Rescaling, asked: Collection[str], prepared: Sequence[str]) -> None:
    """Refuse to go on with a model that was not rescaled though that was asked for."""
    for setting, factors in (("equalize", done.equalized), ("smooth", done.smoothed)):
        if setting in asked and not factors:
            said = [line for line in prepared if line.startswith(setting)]
            raise NoChangeError(f"nothing changes: {'; '.join(said)}")


def _remove(draft: Draft) -> None:
    shutil.rmtree(draft.path.parent, ignore_errors=True)
