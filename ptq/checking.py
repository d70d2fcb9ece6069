"""Hold the accuracy, size and speed of a quantized model: what `ptq check` does."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ptq.baseline import (
    Baseline,
    Entry,
    figures_of,
    regressions,
    require_same_data,
    rounded_layers,
    update,
)
from ptq.check_options import CheckOptions, require_places, require_something
from ptq.comparing import CompareOptions, compare
from ptq.data import Dataset
from ptq.errors import ConfigError, ModelError, PtqError
from ptq.evaluate.faults import advice, float_layers, grown_layers, layer_errors, worst_layers
from ptq.evaluate.figures import integer_figure, size_figure, speed_figure
from ptq.evaluate.latency import Latency, measure_latency
from ptq.evaluate.thresholds import Thresholds, hold
from ptq.files import staged, write_atomically
from ptq.graph.load import model_size
from ptq.metrics import metric_names
from ptq.places import require_text
from ptq.progress import Stages
from ptq.report.check import MAX_DROP, Check, Fault, Figure, Held
from ptq.report.check_markdown import check_markdown
from ptq.report.comparison import Comparison
from ptq.report.junit import junit_error, junit_xml
from ptq.report.report import Environment
from ptq.runtime.coverage import Coverage, measure_coverage
from ptq.runtime.session import open_session
from ptq.sampling import Sampled, SampleOptions, Samples, measure, open_samples

__all__ = ["CheckOptions", "check"]

#: Layers are compared on this many samples: enough to tell bad ones from good ones, in seconds.
LAYER_SAMPLES = 8

#: Figures that are not about the outputs.
_INTEGER, _SIZE, _SPEED = "integer_kernels", "size_bytes", "speedup"


def check(
    reference: str | os.PathLike[str],
    quantized: str | os.PathLike[str],
    data: str | os.PathLike[str] | Dataset,
    options: CheckOptions | None = None,
) -> Check:
    """Measure a quantized model beside the float one, and hold the figures.

    Example:
        >>> options = ptq.CheckOptions(labels="labels.npy", max_drop="0.5%", min_speedup=1.2)
        >>> ptq.check("model.onnx", "model.int8.onnx", "eval.npz", options).passed
        True

    Args:
        reference: the float model.
        quantized: the quantized model, made by whatever tool.
        data: real inputs that calibration has not seen.
        options: what to hold, and how to measure it.

    Raises:
        ConfigError: an option is wrong, there is nothing to hold, or the baseline is of other data.
        ModelError: a model cannot be read.
        DataError: data or labels do not fit the model.
        VerificationError: onnxruntime does not load a model, or it gives NaN.
    """
    job = _Job.of(Path(reference), Path(quantized), data, options or CheckOptions())
    try:
        with tempfile.TemporaryDirectory(prefix="ptq-") as scratch:
            return job.run(Path(scratch))
    except PtqError as error:
        if job.options.junit is not None:
            write_atomically(job.options.junit, junit_error(job.name, str(error)))
        raise


@dataclass(frozen=True, slots=True)
class _Job:
    """A check under way: what is held against what."""

    reference: Path
    quantized: Path
    data: str | Dataset
    options: CheckOptions
    thresholds: Thresholds
    confidence: float
    name: str
    baseline: Baseline
    was: Entry | None
    stages: Stages

    @classmethod
    def of(
        cls,
        reference: Path,
        quantized: Path,
        data: str | os.PathLike[str] | Dataset,
        options: CheckOptions,
    ) -> _Job:
        """Refuse what is wrong before anything is run."""
        thresholds, confidence = options.thresholds(), options.level()
        require_something(thresholds, options)
        data = data if isinstance(data, Dataset) else os.fspath(data)
        require_text([reference, quantized, data, options.labels, *options.outputs().values()])
        require_places(reference, quantized, data, options)
        name, was, baseline = options.name or quantized.name, None, Baseline()
        if options.baseline is not None and (
            not options.update_baseline or options.baseline.exists()
        ):
            baseline = Baseline.load(options.baseline)
        if options.baseline is not None and not options.update_baseline:
            was = baseline.entry(name, options.baseline)
        return cls(
            reference=reference,
            quantized=quantized,
            data=data,
            options=options,
            thresholds=thresholds,
            confidence=confidence,
            name=name,
            baseline=baseline,
            was=was,
            stages=Stages(options.on_progress),
        )

    def run(self, scratch: Path) -> Check:
        """Measure, hold, find the layers at fault, and write the files."""
        options, stages = self.options, self.stages
        with stages.stage("prepare"):
            samples = self._open(scratch)
        sampled = measure(
            samples,
            threads=options.threads,
            confidence=self.confidence,
            required={*self.thresholds.figures(), *self._was_figures()},
            stages=stages,
        )
        if self.was is not None and options.baseline is not None:
            count, digest = sampled.samples, sampled.data_sha256
            require_same_data(self.was, count, digest, self.name, options.baseline)
        notices = [*sampled.notices]
        coverage = None if samples.simulated else self._coverage(notices)
        latency = self._latency(samples)
        figures = (
            *sampled.figures,
            size_figure(model_size(self.reference), model_size(self.quantized)),
            *(() if coverage is None else (integer_figure(coverage.layers),)),
            *(() if latency is None else (speed_figure(latency),)),
        )
        held, improved = self._hold(figures, samples.tasks)
        missed = {h.figure for h in held if h.verdict == "missed"}
        updated = options.update_baseline and not missed
        layers = None
        if updated or not missed <= {_SIZE, _INTEGER, _SPEED}:
            layers = self._compare(samples, notices)
        if updated:
            self._update(sampled, figures, layers)
        notices += self._notices(figures, updated=updated)
        faults = self._faults(missed, layers, coverage)
        found = Check(
            name=self.name,
            reference=str(self.reference),
            quantized=str(self.quantized),
            data=samples.data.source,
            samples=sampled.samples,
            data_sha256=sampled.data_sha256,
            confidence=self.confidence,
            noise=options.noise,
            figures=figures,
            held=held,
            improved=improved,
            faults=faults,
            advice=advice(faults),
            next_commands=tuple(self._next_commands(missed)),
            notices=tuple(notices),
            environment=Environment.here(),
            latency=latency,
            baseline="" if options.baseline is None else str(options.baseline),
            updated=updated,
            stages_s=dict(stages.seconds),
        )
        _write(found, options)
        return found

    def _open(self, scratch: Path) -> Samples:
        options = self.options
        how = SampleOptions(
            options.labels, options.metrics, options.samples, options.images, options.threads
        )
        samples = open_samples(self.reference, self.quantized, self.data, how, scratch)
        if self.thresholds.max_drop is not None and not samples.tasks:
            raise ConfigError(
                f"{MAX_DROP} needs a task figure, and no output looks like class scores; give "
                f"--labels or --metric ({', '.join(metric_names())}, or package.module:function)"
            )
        sampled = {metric.text for metric in samples.metrics.all()}
        for name, option in self.thresholds.figures().items():
            if name not in sampled | {_SIZE, _INTEGER, _SPEED}:
                raise ConfigError(
                    f"{option} holds a figure that these outputs do not have ('{name}'); leave it "
                    "out"
                )
        self._require_measured(sampled)
        if samples.simulated and (self._times or self.thresholds.min_integer is not None):
            raise ConfigError(
                f"'{self.quantized}' was made for another runtime than onnxruntime, whose kernels "
                "cannot be measured here; leave out --min-speedup, --speed and --min-integer"
            )
        return samples

    def _require_measured(self, sampled: set[str]) -> None:
        """Refuse to pass over a figure that the baseline holds."""
        for name in self._was_figures() - sampled - {_SIZE, _INTEGER}:
            if name == _SPEED and self._times:
                continue
            remedy = "--speed" if name == _SPEED else f"--metric {name}, or the --labels it had"
            raise ConfigError(
                f"the baseline holds '{name}' of '{self.name}', which this run does not measure; "
                f"give {remedy}, or --update-baseline"
            )

    @property
    def _times(self) -> bool:
        return self.options.speed or self.thresholds.min_speedup is not None

    def _was_figures(self) -> set[str]:
        return set() if self.was is None else set(self.was.figures)

    def _coverage(self, notices: list[str]) -> Coverage | None:
        """Ask onnxruntime what runs in integers; ``None`` for a graph that cannot be read."""
        try:
            with self.stages.stage("load"):
                return measure_coverage(self.quantized)
        except ModelError as error:
            if self.thresholds.min_integer is not None or _INTEGER in self._was_figures():
                raise
            notices.append(f"integer kernels not counted: {error}")
            return None

    def _latency(self, samples: Samples) -> Latency | None:
        if not self._times:
            return None
        with self.stages.stage("time"):
            # one thread: with more, cores shared with other work measure the other work
            return measure_latency(
                partial(open_session, samples.reference),
                partial(open_session, self.quantized),
                samples.first,
                threads=1,
                seconds=self.options.seconds,
            )

    def _hold(
        self, figures: Sequence[Figure], tasks: Sequence[str]
    ) -> tuple[tuple[Held, ...], tuple[str, ...]]:
        held = hold(
            figures,
            tasks,
            self.thresholds,
            noise=self.options.noise,
            confidence=self.confidence,
        )
        if self.was is None:
            return held, ()
        against, improved = regressions(self.baseline, self.was, figures)
        return (*held, *against), improved

    def _update(
        self, sampled: Sampled, figures: Sequence[Figure], layers: Comparison | None
    ) -> None:
        assert self.options.baseline is not None
        entry = Entry(
            samples=sampled.samples,
            data_sha256=sampled.data_sha256,
            figures=figures_of(figures),
            layers={} if layers is None else rounded_layers(layer_errors(layers)),
        )
        update(self.options.baseline, self.name, entry)

    def _compare(self, samples: Samples, notices: list[str]) -> Comparison | None:
        """Compare layer by layer, on few samples; ``None`` if the models share too little."""
        options = CompareOptions(
            samples=LAYER_SAMPLES,
            threads=self.options.threads,
            on_progress=self.options.on_progress,
        )
        try:
            with self.stages.stage("compare"):
                return compare(self.reference, self.quantized, samples.data, options)
        except PtqError as error:
            # the check has its result without, and a model of another tool may share no names
            notices.append(f"layers could not be compared: {error}")
            return None

    def _faults(
        self, missed: set[str], layers: Comparison | None, coverage: Coverage | None
    ) -> tuple[Fault, ...]:
        faults: tuple[Fault, ...] = ()
        if layers is not None and missed - {_SIZE, _INTEGER, _SPEED}:
            faults = grown_layers(layers, self.was.layers) if self.was is not None else ()
            # a limit may be missed without anything having grown
            faults = faults or worst_layers(layers)
        if coverage is not None and _INTEGER in missed:
            faults += float_layers(coverage.layers)
        return faults

    def _next_commands(self, missed: set[str]) -> Iterator[str]:
        source = self.data.source if isinstance(self.data, Dataset) else self.data
        models = [str(self.reference), str(self.quantized)]
        data = ["--data", source]
        if missed - {_SIZE, _INTEGER, _SPEED}:
            images = self.options.image_arguments
            yield shlex.join(["ptq", "compare", *models, *data, *images, "--top", "10"])
        if _INTEGER in missed:
            yield shlex.join(["ptq", "inspect", str(self.quantized)])
        if _SPEED in missed:
            yield shlex.join(["ptq", "bench", *models, *data, "--profile"])

    def _notices(self, figures: Sequence[Figure], *, updated: bool) -> Iterator[str]:
        if self.options.update_baseline and not updated:
            yield "the baseline was not updated, because a threshold was missed"
        if self.was is None:
            return
        new = [figure.title for figure in figures if figure.name not in self.was.figures]
        if new:
            yield f"not in the baseline yet: {', '.join(new)}; --update-baseline adds them"


def _write(found: Check, options: CheckOptions) -> None:
    contents = (
        (options.junit, junit_xml),
        (options.report, Check.to_json),
        (options.markdown, lambda check: check_markdown(check).encode()),
    )
    with ExitStack() as stack:
        for path, render in contents:
            if path is not None:
                stack.enter_context(staged(path, render(found)))
