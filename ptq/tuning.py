"""`ptq tune`: find the cheapest settings that hold an accuracy, a speed and a size."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ptq.config import AUTO, QuantizeConfig
from ptq.data import Dataset, data_forms, open_dataset, read_labels, select_labels
from ptq.data.feeds import hash_feed
from ptq.data.labels import Kind, Labels
from ptq.data.split import split_in_halves
from ptq.errors import ConfigError, VerificationError
from ptq.evaluate.figures import Metrics, choose_metrics
from ptq.extracting import recipe_file
from ptq.files import staged, write_atomically
from ptq.graph.load import model_digest, model_files
from ptq.graph.protos import parse_tensor
from ptq.judging import Half, Judge, Samplings, Trial
from ptq.metrics import parse_metric
from ptq.pipeline import Data
from ptq.place.memory import cache_folder
from ptq.places import require_free, require_text
from ptq.progress import Progress, Stages
from ptq.proof import reference_of
from ptq.report.report import Environment
from ptq.report.tuning import TunedPoint, Tuning
from ptq.report.tuning_page import tuning_renderer
from ptq.runtime.host import host_target
from ptq.runtime.session import open_session, run
from ptq.sampling import label_kind
from ptq.search.climb import Climb, Step, nearest
from ptq.search.ladder import LADDER, UNCHANGED, Rung
from ptq.search.pareto import pareto_front
from ptq.search.trial_store import TrialStore
from ptq.source import Source, open_source
from ptq.targets import load_target
from ptq.trying import Bench, Setup
from ptq.tune_options import TuneOptions, TuneProgress, seconds_of

__all__ = ["TuneOptions", "tune"]

#: On the front, files that differ by less are as large, and times that do are as long: what a
#: measurement on a machine that does other work as well can tell.
_ALIKE_SIZE, _ALIKE_TIME = 1.01, 1.05

#: What models can be timed on.
RUNTIME = "onnxruntime"

#: What is measured beside the task figures.
_SQNR = "sqnr"


def tuned_output(model: Path) -> Path:
    """Return where the winner goes unless told otherwise: ``MODEL.tuned.onnx`` beside it."""
    return model.with_name(f"{model.stem}.tuned.onnx")


def tune(
    model: str | os.PathLike[str],
    calibration: Data | None,
    config: QuantizeConfig | None = None,
    options: TuneOptions | None = None,
) -> Tuning:
    """Try settings from cheap to dear until every limit holds, and write the model.

    Trials are kept: a run that was interrupted goes on where it was, and the same run gives the
    same answer again. If nothing holds every limit, what comes nearest is written, and
    ``satisfied`` is false.

    Example:
        >>> options = ptq.TuneOptions(run=ptq.RunOptions(evaluation="eval.npz"), max_drop="0.5%")
        >>> found = ptq.tune("model.onnx", "calib.npz", options=options)
        >>> found.best.label, found.satisfied
        ('as given + bias correction', True)

    Args:
        model: the file of a float32 model.
        calibration: real inputs, as for `ptq.quantize`.
        config: what to start from; its scheme must be static.
        options: what to reach.

    Raises:
        ConfigError: a setting is wrong, or a place is taken.
        ModelError: the model cannot be read.
        DataError: the data does not fit the model, or is too little to be cut in two.
        VerificationError: no settings give a model at all.
    """
    options, path = options or TuneOptions(), Path(model)
    config = _settled(config or QuantizeConfig())
    if options.run.output is None:
        options = replace(options, run=replace(options.run, output=tuned_output(path)))
    _require_places(path, calibration, options)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="ptq-")))
        return _Tuner.begin(path, calibration, config, options, scratch).run(stack)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tuner:
    """A search under way."""

    setup: Setup
    config: QuantizeConfig
    options: TuneOptions
    budget: float
    notices: tuple[str, ...]

    @classmethod
    def begin(
        cls,
        path: Path,
        calibration: Data | None,
        config: QuantizeConfig,
        options: TuneOptions,
        scratch: Path,
    ) -> _Tuner:
        """Open the model and the data, and refuse what cannot be done."""
        budget, level = seconds_of(options.time_budget), options.level()
        stages = Stages(options.run.on_progress)
        with stages.stage("prepare"):
            source = open_source(path)
        thresholds = options.thresholds(source.size_bytes)
        if thresholds.min_speedup is not None and load_target(config.target).runtime != RUNTIME:
            raise ConfigError(
                f"--min-speedup is of kernels that run here, and target '{config.target}' is of "
                "another runtime; leave it out"
            )
        if calibration is None:
            raise ConfigError(f"tuning needs calibration data; give one of: {data_forms()}")
        data = _opened(calibration, source, options, samples=options.run.samples)
        with stages.stage("read"):
            choosing, reporting = _halves(source, options, config.seed)
            given = _half(data, None, "any")
        _require_images([data, choosing.data, reporting.data], options)
        reference = reference_of(source, scratch)
        metrics, notices = _metrics(reference, choosing, options)
        judge = Judge(
            metrics=metrics,
            thresholds=thresholds,
            confidence=level,
            float_bytes=source.size_bytes,
        )
        setup = Setup(
            source=source,
            calibration=given,
            samplings=Samplings(reference, choosing, reporting),
            judge=judge,
            options=replace(options.run, evaluation=None, labels=None, report=None, page=None),
        )
        if data.synthetic or choosing.data.synthetic:
            notices = (*notices, "the inputs are random numbers: real ones give other figures")
        said = dict.fromkeys((*data.notices, *choosing.data.notices, *reporting.data.notices))
        return cls(
            setup=setup,
            config=config,
            options=options,
            budget=budget,
            notices=(*said, *notices),
        )

    def run(self, stack: ExitStack) -> Tuning:
        """Search, publish the winner, and write the reports.

        Args:
            stack: removes what trials wrote.
        """
        operators = frozenset(node.op_type for node in self.setup.source.model.graph)
        teller = _Teller(self.options, len(self._ladder))
        setup = replace(
            self.setup, options=replace(self.setup.options, on_progress=teller.on_progress)
        )
        bench = Bench(setup, TrialStore(state_folder(self.options)), stack, teller.on_trial)
        climb = Climb(
            ladder=self._ladder,
            budget=self.budget,
            operators=operators,
            to_the_top=self.options.to_the_top,
        )
        steps = climb.run(self.config, bench)
        winner = _winner(steps, bench)
        found = self._found(steps, bench, winner)
        draft = bench.draft(winner)
        if model_digest(draft.path) != found.points[winner].sha256:
            raise VerificationError(
                f"'{found.points[winner].label}' came out otherwise than in its trial; give "
                "another --state to measure all again"
            )
        # only now is it known whether the winner needs a file for its weights
        written = [draft.destination.with_name(file.name) for file in draft.files]
        path = self.setup.source.path
        require_free(written, path, model_files(path)[1:], force=self.options.run.force)
        self._write(found, stack)
        draft.publish()
        return found

    @property
    def _ladder(self) -> tuple[Rung, ...]:
        """What to try: the float model comes last where it can hold the limits."""
        limits = self.setup.judge.thresholds
        size, speed = limits.max_size_ratio, limits.min_speedup
        possible = (size is None or size >= 1) and (speed is None or speed <= 1)
        return (*LADDER, UNCHANGED) if possible else LADDER

    def _found(self, steps: Sequence[Step], bench: Bench, winner: int) -> Tuning:
        judge, options = self.setup.judge, self.options
        points = [_point(i, step, bench, judge) for i, step in enumerate(steps)]
        measured = [i for i, point in enumerate(points) if point.measured]
        figures = [_figures(steps[i], bench.trials[i], judge.float_bytes) for i in measured]
        front = {measured[k] for k in pareto_front(figures)}
        points = [msgspec.structs.replace(p, front=i in front) for i, p in enumerate(points)]
        reported = judge.reported(bench.trials[winner])
        outcome = steps[winner].outcome
        assert outcome is not None
        choosing, reporting = self.setup.samplings.choosing, self.setup.samplings.reporting
        sure = all(held.verdict == "holds" for held in reported)
        return Tuning(
            model=str(self.setup.source.path),
            size_bytes=judge.float_bytes,
            calibration=self.setup.calibration.data.source,
            data=choosing.data.source,
            report_data=reporting.data.source,
            samples=(choosing.count, reporting.count),
            tasks=judge.tasks,
            limits=options.limits(),
            points=tuple(points),
            winner=winner,
            satisfied=outcome.satisfies and sure,
            held=reported,
            confidence=judge.confidence,
            spent_s=sum(trial.seconds for trial in bench.trials.values()),
            budget_s=self.budget,
            output=str(options.run.output),
            notices=(*self.notices, *_notices(points[winner], bench.trials[winner])),
            environment=Environment.here(),
        )

    def _write(self, found: Tuning, stack: ExitStack) -> None:
        """Stage the reports, which appear once the model is published, and write the front."""
        run = self.options.run
        if run.page is not None:
            page = tuning_renderer(run.page)(found)
            stack.enter_context(staged(run.page, page.encode()))
        if run.report is not None:
            stack.enter_context(staged(run.report, found.to_json()))
        folder = self.options.front
        if folder is None:
            return
        folder.mkdir(exist_ok=True)
        for number, point in enumerate(found.points):
            if point.front and point.recipe:
                name = re.sub(r"[^a-z0-9]+", "-", point.rung).strip("-")
                write_atomically(folder / f"{number:02}-{name}.toml", point.recipe.encode())


class _Teller:
    """Tells how far a search is, with the stage of the trial at hand."""

    def __init__(self, options: TuneOptions, total: int) -> None:
        self._tell, self._total = options.on_tune, total
        self._number, self._label = 0, ""

    def on_trial(self, number: int, label: str) -> None:
        """Begin a trial."""
        self._number, self._label = number, label
        self._tell(TuneProgress(label, number, self._total))

    def on_progress(self, stage: Progress) -> None:
        """Go on with it."""
        self._tell(TuneProgress(self._label, self._number, self._total, stage))


# -- what came of it ----------------------------------------------------------------------------


def _winner(steps: Sequence[Step], bench: Bench) -> int:
    """Return the number of the step to write: what holds every limit, or comes nearest."""
    holding = [i for i, s in enumerate(steps) if s.outcome is not None and s.outcome.satisfies]
    if holding:  # one, unless all were tried: then the fastest, and of these the nearest to float
        made = [i for i in holding if steps[i].rung.quantizes] or holding
        return min(made, key=lambda i: (_time_step(bench.trials[i]), _merit(steps[i]), i))
    found = nearest(steps)
    if found is None:
        failed = next(s.outcome.failed for s in steps if s.outcome is not None)
        raise VerificationError(f"no settings give a model; the first: {failed}")
    return found


def _point(number: int, step: Step, bench: Bench, judge: Judge) -> TunedPoint:
    if step.outcome is None:
        return TunedPoint(rung=step.rung.name, path=step.path, left_out=step.left_out)
    trial = bench.trials[number]
    remembered = number in bench.remembered
    if trial.failed:
        return TunedPoint(
            rung=step.rung.name,
            path=step.path,
            failed=trial.failed,
            seconds=trial.seconds,
            remembered=remembered,
        )
    return TunedPoint(
        rung=step.rung.name,
        path=step.path,
        choosing=trial.choosing,
        reporting=trial.reporting,
        size_bytes=trial.size_bytes,
        latency=trial.latency,
        same_kernels=not step.rung.kernels,
        seconds=trial.seconds,
        remembered=remembered,
        held=judge.held(trial),
        sha256=trial.sha256,
        recipe="" if trial.recipe is None else recipe_file(trial.recipe),
    )


def _figures(step: Step, trial: Trial, float_bytes: int) -> tuple[float, float, float]:
    """Return what is to be small: error where it is chosen by, size and time in steps."""
    size = round(math.log(trial.size_bytes / float_bytes) / math.log(_ALIKE_SIZE))
    return _merit(step), size, _time_step(trial)


def _merit(step: Step) -> float:
    assert step.outcome is not None
    return step.outcome.merit


def _time_step(trial: Trial) -> float:
    """Return the time beside that of the float model, in steps that can be told apart."""
    if trial.latency is None:
        return 0.0
    return float(round(-math.log(trial.latency.speedup) / math.log(_ALIKE_TIME)))


def _notices(best: TunedPoint, trial: Trial) -> list[str]:
    said = list(trial.notices)
    if trial.recipe is None:
        said.append(
            "nothing that was quantized holds every limit, and the float model itself was written; "
            "allow a larger drop, or give more evaluation data if noise decides"
        )
    elif best.latency is not None and best.latency.verdict == "slower":
        said.append(
            f"'{best.label}' is slower than the float model; --min-speedup 1 looks for one that is "
            "not"
        )
    return said


# -- data and places ----------------------------------------------------------------------------


def _settled(config: QuantizeConfig) -> QuantizeConfig:
    """Return the settings with every name known, for this machine if no target is named."""
    if config.scheme != "static":
        raise ConfigError(
            f"tuning starts from static quantization, not from --scheme {config.scheme}; the other "
            "schemes are tried by themselves"
        )
    if config.format == "both":
        raise ConfigError("--format both writes two files, and tuning measures one; choose one")
    config.require_known()
    return config.at(host_target()) if config.target == AUTO else config


def _require_places(model: Path, calibration: Data | None, options: TuneOptions) -> None:
    """Refuse places that are something else, before any work."""
    run_options = options.run
    outputs = [run_options.output, run_options.report, run_options.page]
    given = [calibration, run_options.evaluation, options.report_data]
    given += [run_options.labels, options.report_labels]
    require_text([model, *outputs, *given, options.front, options.state])
    read = [*given, *model_files(model)[1:]] if model.is_file() else given
    require_free(outputs, model, read, force=run_options.force)
    if run_options.page is not None:
        tuning_renderer(run_options.page)
    front = options.front
    if front is None:
        return
    if not front.absolute().parent.is_dir():
        raise ConfigError(f"folder '{front.parent}' does not exist; create it first")
    if front.exists() and not front.is_dir():
        raise ConfigError(f"'{front}' is a file; give --front a folder")
    if front.is_dir() and any(front.iterdir()) and not run_options.force:
        raise ConfigError(f"'{front}' is not empty; give --force to write into it, or another")


def state_folder(options: TuneOptions) -> Path | None:
    """Return where trials are kept; ``None`` if they are not."""
    if options.state is not None:
        return options.state
    cache = cache_folder()
    return None if cache is None else cache / "tuning"


def _require_images(data: Sequence[Dataset], options: TuneOptions) -> None:
    if options.run.images is not None and all(d.kind != "images" for d in data):
        raise ConfigError("--image and --image-config need images as data; leave them out")


def _opened(data: Data, source: Source, options: TuneOptions, *, samples: int | None) -> Dataset:
    if isinstance(data, Dataset):
        return data
    return open_dataset(
        data,
        source.inputs,
        samples=samples,
        images=options.run.images,
        tensor_parser=parse_tensor,
    )


def _halves(source: Source, options: TuneOptions, seed: int) -> tuple[Half, Half]:
    """Return the samples that choose, and those to report on."""
    given = options.run.evaluation
    if given is None:
        raise ConfigError("tuning measures on data that calibration has not seen; give --eval-data")
    if isinstance(given, Dataset):
        raise ConfigError("tuning opens its evaluation data twice; give a path")
    choosing = _opened(given, source, options, samples=options.eval_samples)
    labels = [options.run.labels, options.run.labels]
    if options.report_data is not None:
        reporting = _opened(options.report_data, source, options, samples=None)
        labels[1] = options.report_labels
        if (labels[0] is None) != (labels[1] is None):
            raise ConfigError("--labels and --report-labels go together; give both")
    else:
        if options.report_labels is not None:
            raise ConfigError("--report-labels are of --report-data; give that, too")
        reporting = _opened(given, source, options, samples=options.eval_samples)
        split_in_halves(choosing, reporting, seed)
    kind = label_kind(options.metrics)
    return _half(choosing, labels[0], kind), _half(reporting, labels[1], kind)


def _half(data: Dataset, labels: Path | None, kind: Kind) -> Half:
    found: Labels | None = None
    hasher, count = hashlib.sha256(), 0
    for feed in data:
        hash_feed(hasher, feed)
        count += 1
    if labels is not None:
        found = select_labels(read_labels(labels, kind), data)
        hasher.update(msgspec.json.encode([str(label) for label in found]))
    return Half(data, found, hasher.hexdigest(), count)


def _metrics(
    reference: Path, choosing: Half, options: TuneOptions
) -> tuple[Metrics, tuple[str, ...]]:
    """Return what to measure: the figures of the task and the SQNR; and what to say of it."""
    session = open_session(reference)
    names = [output.name for output in session.get_outputs()]
    values = run(session, next(iter(choosing.data)), where="the first sample")
    outputs: dict[str, np.ndarray] = dict(zip(names, values, strict=True))
    texts = isinstance(choosing.labels, tuple)
    kind = "" if choosing.labels is None else "texts" if texts else "classes"
    found = choose_metrics(options.metrics, kind, outputs)
    general = tuple(metric for metric in found.general if metric.text == _SQNR)
    if found.tasks:
        return Metrics(found.tasks, general), ()
    if not general:
        raise ConfigError("no output is of floating point; say with --metric what --max-drop holds")
    notice = (
        "no output looks like class scores, so that --max-drop holds the cosine similarity with "
        "the float model's outputs; give --metric for another figure"
    )
    return Metrics((parse_metric("cosine"),), general), (notice,)
