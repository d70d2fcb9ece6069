"""Run a float and a quantized model on the same samples, for the figures of their outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ptq.data import Dataset, Feed, ImageOptions, hash_feed, open_dataset, read_labels
from ptq.data.labels import Kind, Labels, select_labels
from ptq.embedded import is_simulated
from ptq.errors import ConfigError, VerificationError
from ptq.evaluate.figures import Metrics, choose_metrics, sampled_figure
from ptq.evaluate.score import score
from ptq.graph.protos import parse_tensor
from ptq.graph.quantized import read_quantized
from ptq.metrics import Metric, parse_metric
from ptq.progress import Stages
from ptq.proof import reference_of
from ptq.report.check import Figure
from ptq.runtime.session import Session, open_session, run
from ptq.runtime.signature import session_inputs
from ptq.source import open_source


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What two models are run on, and what for.

    Attributes:
        reference: the float model as onnxruntime loads it.
        quantized: the quantized model.
        data: the feeds.
        labels: right answers, if there are any.
        metrics: what to measure.
        first: the first feed, to time both models on.
        simulated: whether the quantized model is for another runtime, and is run as it is written.
    """

    reference: Path
    quantized: Path
    data: Dataset
    labels: Labels | None
    metrics: Metrics
    first: Feed
    simulated: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the task figures."""
        return tuple(metric.text for metric in self.metrics.tasks)


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on samples.

    Attributes:
        figures: in the order of the metrics, tasks first.
        samples: how many feeds were run.
        data_sha256: digest of the feeds, and of the labels if there are any.
        notices: what the user should know.
    """

    figures: tuple[Figure, ...]
    samples: int
    data_sha256: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Which samples, and what to measure on them.

    Attributes:
        labels: file of right answers.
        metrics: task metrics; ``()`` for the one that labels or outputs suggest.
        samples: how many samples to use; ``None`` for all.
        images: how to prepare images.
        threads: threads to run with.
    """

    labels: Path | None
    metrics: tuple[str, ...]
    samples: int | None
    images: ImageOptions | None
    threads: int


def open_samples(
    reference: Path, quantized: Path, data: str | Dataset, options: SampleOptions, scratch: Path
) -> Samples:
    """Open models, data and labels, and choose what to measure.

    Args:
        reference: the float model.
        quantized: the quantized model.
        data: where the feeds come from.
        options: which, and what for.
        scratch: a folder for a float model that onnxruntime loads only once it is repaired.

    Raises:
        PtqError: something of this cannot be read, or does not fit.
    """
    reference, session = _open_float(reference, scratch)
    if not isinstance(data, Dataset):
        data = open_dataset(
            data,
            session_inputs(session),
            samples=options.samples,
            images=options.images,
            tensor_parser=parse_tensor,
        )
    if options.images is not None and data.kind != "images":
        raise ConfigError("--image and --image-config need images as data; leave them out")
    labels = None
    if options.labels is not None:
        labels = select_labels(read_labels(options.labels, label_kind(options.metrics)), data)
    first = next(iter(data))
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, run(session, first, where="the first sample"), strict=True))
    kind = "texts" if isinstance(labels, tuple) else "classes" if labels is not None else ""
    metrics = choose_metrics(options.metrics, kind, outputs)
    simulated = is_simulated(read_quantized(quantized).metadata_props)
    return Samples(reference, quantized, data, labels, metrics, first, simulated)


def _open_float(path: Path, scratch: Path) -> tuple[Path, Session]:
    try:
        return path, open_session(path)
    except VerificationError:
        path = reference_of(open_source(path), scratch)
        return path, open_session(path)


def _open_quantized(samples: Samples, threads: int) -> Session:
    path = samples.quantized
    try:
        return open_session(
            path, threads=threads, optimization="disabled" if samples.simulated else "all"
        )
    except VerificationError as error:
        raise VerificationError(f"'{path}': {error}") from error.__cause__


def label_kind(metrics: Sequence[str]) -> Kind:
    """Return what the labels are: what the task metrics take, else what the file looks like."""
    kinds = {metric.label_kind for metric in map(parse_metric, metrics)} - {"any"}
    return kinds.pop() if len(kinds) == 1 else "any"


def measure(
    samples: Samples,
    *,
    threads: int,
    confidence: float,
    required: Collection[str],
    stages: Stages,
) -> Sampled:
    """Run both models on all samples.

    Where outputs cannot be compared value by value, as boxes of another number, only the task is
    measured, and a notice says so.

    Args:
        samples: what to run on what.
        threads: threads to run with.
        confidence: of the intervals.
        required: names of figures that something holds.
        stages: told of every sample.

    Raises:
        PtqError: a metric does not fit the outputs or the labels, the quantized model does not load
            or gives NaN.
    """
    metrics, notices = samples.metrics.all(), []
    if samples.data.synthetic:
        notices.append("the inputs are random numbers: real ones give other figures")
    with stages.stage("evaluate", samples.data.expected) as step:
        try:
            found = _run(samples, metrics, threads, confidence, step)
        except VerificationError as error:
            tasks = samples.metrics.tasks
            left_out = [metric.text for metric in metrics if metric not in tasks]
            if not tasks or not left_out or any(name in required for name in left_out):
                raise
            notices.append(f"{', '.join(left_out)} not measured: {error}")
            found = _run(samples, tasks, threads, confidence, step)
    return msgspec.structs.replace(found, notices=(*samples.data.notices, *notices))


def _run(
    samples: Samples,
    metrics: Sequence[Metric],
    threads: int,
    confidence: float,
    step: Callable[[], None],
) -> Sampled:
    hasher, count = hashlib.sha256(), 0

    def feeds() -> Iterator[Feed]:
        nonlocal count
        for feed in samples.data:
            hash_feed(hasher, feed)
            count += 1
            yield feed

    scores = score(
        open_session(samples.reference, threads=threads),
        _open_quantized(samples, threads),
        feeds(),
        metrics,
        labels=samples.labels,
        level=confidence,
        on_feed=step,
    )
    if samples.labels is not None:
        hasher.update(msgspec.json.encode([str(label) for label in samples.labels]))
    figures = tuple(sampled_figure(*found) for found in zip(metrics, scores, strict=True))
    return Sampled(figures=figures, samples=count, data_sha256=hasher.hexdigest())
