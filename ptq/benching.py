"""Compare models of one network: size, time to load, memory, latency, and where the time goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ptq.data import Feed, InputSpec, open_dataset
from ptq.data.shapes import common_inputs, settle_shapes
from ptq.errors import ConfigError, UnsupportedError, VerificationError
from ptq.evaluate.bench import Layer, align
from ptq.evaluate.latency import BLOCKS, Latencies, measure_latencies
from ptq.files import staged
from ptq.graph.load import model_files, model_size
from ptq.graph.protos import parse_tensor
from ptq.places import require_free, require_text
from ptq.progress import OnProgress, Stages, ignore
from ptq.report.bench import Bench, BenchedModel, FedInput, ModelLatency, ThreadsLatency
from ptq.report.profile import BenchedLayer, Profile, RunKernel
from ptq.report.report import Environment
from ptq.runtime.footprint import Footprint, measure_footprint
from ptq.runtime.profile import profile_interleaved
from ptq.runtime.session import Session, open_session, run
from ptq.runtime.signature import session_inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How to compare models.

    Attributes:
        data: real inputs, in any form that calibration data has; the first sample is used. Random
            numbers if ``None``.
        shapes: shapes of dynamic inputs, by name; the name of the only input may be empty.
        threads: numbers of threads to measure with, one after the other.
        seconds: about how long to measure, for each of them.
        profile: whether to time every kernel, with the first number of threads.
        report: where to write the result as JSON.
        force: whether an existing file may be replaced.
        on_progress: told of every step.
    """

    data: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    threads: Sequence[int] = (1,)
    seconds: float = 5.0
    profile: bool = False
    report: Path | None = None
    force: bool = False
    on_progress: OnProgress = ignore

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if not self.threads or min(self.threads) < 1:
            raise ConfigError("there must be a number of threads, of 1 or more each")
        if self.data is not None and self.shapes:
            raise ConfigError("--data and --shape exclude each other; the data has its shapes")


def bench(models: Sequence[str | os.PathLike[str]], options: BenchOptions | None = None) -> Bench:
    """Compare models that take the same inputs; ratios are against the first.

    Example:
        >>> found = ptq.bench(["model.onnx", "model.int8.onnx"])
        >>> found.latencies[0].models[1].verdict
        'faster'

    Args:
        models: model files, float or quantized.
        options: what to feed, and how to measure.

    Raises:
        ConfigError: an option is wrong, or the models have not the same inputs.
        ModelError: a model cannot be read.
        DataError: the data does not fit the models.
        VerificationError: onnxruntime does not load a model.
    """
    options = options or BenchOptions()
    paths = [Path(model) for model in models]
    if not paths:
        raise ConfigError("there is nothing to compare; give one model or more")
    require_text([*paths, options.data, options.report])
    stages = Stages(options.on_progress)
    labels = labels_of(paths)
    with stages.stage("prepare", len(paths)) as step:
        sizes = [model_size(path) for path in paths]
        _require_free(options, [file for path in paths for file in model_files(path)])
        feed, notices = _prepare(paths, options, step)
    with stages.stage("load", len(paths)) as step:
        footprints = [_footprint(path, feed, options.threads[0], step) for path in paths]
    latencies = []
    with stages.stage("time", BLOCKS * len(options.threads)) as step:
        for threads in options.threads:
            openers = [partial(open_session, path, threads=threads) for path in paths]
            found = measure_latencies(
                openers, feed, threads=threads, seconds=options.seconds, on_block=step
            )
            latencies.append(_latency(found))
    profile = None
    if options.profile:
        with stages.stage("profile"):
            profile = profile_models(paths, feed, options.threads[0], options.seconds)
    result = Bench(
        environment=Environment.here(),
        source=options.data or "random",
        inputs=tuple(
            FedInput(name=name, dtype=str(a.dtype), shape=a.shape) for name, a in feed.items()
        ),
        models=tuple(
            _model(*known) for known in zip(labels, paths, sizes, footprints, strict=True)
        ),
        latencies=tuple(latencies),
        profile=profile,
        stages_s=dict(stages.seconds),
        notices=tuple(notices),
    )
    if options.report is not None:
        with staged(options.report, result.to_json()):
            pass
    return result


def labels_of(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path: as much of its end as tells it from the others."""
    parts = [path.absolute().parts for path in paths]
    labels = []
    for i, own in enumerate(parts):
        others = [other for other in parts if other != own]
        count = 1
        while any(other[-count:] == own[-count:] for other in others):
            count += 1
        label = "/".join(own[-count:])
        again = parts[:i].count(own)
        labels.append(f"{label} ({again + 1})" if again else label)
    return labels


def _require_free(options: BenchOptions, read: Sequence[Path]) -> None:
    report = options.report
    if report is None:
        return
    if report.exists() and any(file.exists() and report.samefile(file) for file in read):
        raise ConfigError(f"'{report}' belongs to a model; choose another name with --json")
    require_free([report], read[0], [options.data], force=options.force)


def _prepare(
    paths: Sequence[Path], options: BenchOptions, step: Callable[[], None]
) -> tuple[Feed, list[str]]:
    """Return what to feed, after each model has run on it once, and what to say about it."""
    sessions = [_open(path) for path in paths]
    inputs = common_inputs(dict(zip(map(str, paths), map(_inputs, paths, sessions), strict=True)))
    notices: list[str] = []
    if options.data is None:
        settled = settle_shapes(inputs, options.shapes)
        inputs, notices = settled.inputs, [*settled.notices]
    data = open_dataset(options.data or "random", inputs, samples=1, tensor_parser=parse_tensor)
    feed = next(iter(data))
    for path, session in zip(paths, sessions, strict=True):
        run(session, feed, where=f"'{path}', fed from {options.data or 'random values'}")
        step()
    return feed, [*notices, *data.notices]


def _open(path: Path) -> Session:
    try:
        return open_session(path)
    except VerificationError as error:
        raise VerificationError(f"'{path}': {error}") from error.__cause__


def _inputs(path: Path, session: Session) -> tuple[InputSpec, ...]:
    try:
        return session_inputs(session)
    except UnsupportedError as error:
        raise UnsupportedError(f"'{path}': {error}") from error.__cause__


def _footprint(path: Path, feed: Feed, threads: int, step: Callable[[], None]) -> Footprint:
    found = measure_footprint(path, feed, threads=threads)
    step()
    return found


def _model(label: str, path: Path, size_bytes: int, footprint: Footprint) -> BenchedModel:
    return BenchedModel(
        label=label,
        path=str(path),
        size_bytes=size_bytes,
        load_ms=footprint.load_ms,
        peak_rss_bytes=footprint.peak_rss_bytes,
        bare_rss_bytes=footprint.bare_rss_bytes,
    )


def _latency(found: Latencies) -> ThreadsLatency:
    return ThreadsLatency(
        threads=found.threads,
        rounds=found.rounds,
        control=found.control.median,
        control_spread=found.control.spread,
        models=tuple(
            ModelLatency(
                median_ms=timing.median_ms,
                p10_ms=timing.p10_ms,
                p90_ms=timing.p90_ms,
                speedup=speedup.median,
                speedup_p10=speedup.p10,
                spread=speedup.spread,
                verdict=speedup.verdict,
            )
            for timing, speedup in zip(found.timings, found.speedups, strict=True)
        ),
    )


def profile_models(paths: Sequence[Path], feed: Feed, threads: int, seconds: float) -> Profile:
    """Time every kernel of models of one network, in turn, and put their layers side by side.

    Args:
        paths: the model files.
        feed: what to run.
        threads: threads within an operator.
        seconds: about how long to measure.
    """
    kernels = profile_interleaved(paths, [feed] * len(paths), threads=threads, seconds=seconds)
    return Profile(
        threads=threads,
        total_ms=tuple(sum(kernel.ms for kernel in found) for found in kernels),
        layers=tuple(map(_layer, align(kernels))),
    )


def _layer(layer: Layer) -> BenchedLayer:
    return BenchedLayer(
        name=layer.name,
        ms=layer.ms,
        kernels=tuple(
            tuple(RunKernel(name=k.name, op_type=k.op_type, ms=k.ms) for k in found)
            for found in layer.kernels
        ),
    )
