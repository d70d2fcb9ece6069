"""Write a training job: graphs, first values and the manifest, in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from ptq import __version__
from ptq.data.feeds import Feed, InputSpec, fixed_dim
from ptq.errors import DataError
from ptq.files import sha256_of, write_atomically
from ptq.graph.save import save_model, to_bytes
from ptq.graph.types import Model
from ptq.runtime.session import open_session, run
from ptq.train.arrays import packed
from ptq.train.graphs import (
    LOSS,
    TrainingGraph,
    choose_targets,
    evaluation_graph,
    gradient_output,
    state_output,
    target_input,
    teacher_graph,
    training_graph,
)
from ptq.train.losses import Target
from ptq.train.manifest import (
    EVAL,
    FORWARD,
    HELD_OUT,
    LABELS,
    MANIFEST,
    PARAMETERS,
    TEACHER,
    TRAIN,
    Array,
    Loss,
    Manifest,
    TrainedArray,
    Untrained,
)
from ptq.train.network import Network
from ptq.train.reverse import Frozen
from ptq.train.trace import trace
from ptq.train.variants import Variants

#: About how many bytes the values of one run of the training graph may take.
_MEMORY = 2 << 30

#: How often the values of the forward pass are in memory: they are kept for the way back, beside
#: what the quantizers make of them and the gradients on their way.
_COPIES = 4

#: Samples by which the signal of the outputs is measured.
_MEASURED_ON = 16


@dataclass(frozen=True, slots=True, eq=False)
class JobSource:
    """What a job is made from.

    Attributes:
        network: with quantizers.
        model: the prepared float network, which is the teacher.
        folder: where its external data lies.
        inputs: what it wants to be fed.
        feeds: samples to train on; the first few are read.
        held_out: samples on which the result is judged.
    """

    network: Network
    model: Model
    folder: Path
    inputs: Sequence[InputSpec]
    feeds: Sequence[Feed]
    held_out: Sequence[Feed]


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How a job trains.

    Attributes:
        method: the training method, with options.
        weight_bits: width of the weights.
        activation_bits: width of the activations.
        loss: what is made small.
        batch: samples for each run of the graph, at most; fewer where they would not fit.
        config: the settings of the quantization.
        keep_float: nodes that stay in float though they could be integer.
        timed: whether onnxruntime measures which of several equal ways to a gradient is fastest;
            the manifest keeps what was chosen. Else the same settings write the same bytes.
    """

    method: str
    weight_bits: int
    activation_bits: int
    loss: Loss
    batch: int
    config: dict[str, object]
    keep_float: tuple[str, ...] = ()
    timed: bool = False


def write_job(folder: Path, source: JobSource, settings: JobSettings) -> Manifest:
    """Write a training job into a folder that is there; return its manifest.

    Args:
        folder: files in it of the same names are replaced; the manifest is written last.
        source: what the job is made from.
        settings: how it trains.

    Raises:
        UnsupportedError: no parameter can be trained.
        DataError: samples do not make up a batch.
    """
    layers = [p.site for p in source.network.parameters if p.parameter.role == "weight"]
    targets = choose_targets(source.model, settings.loss.kind, layers)
    teacher = teacher_graph(source.model, targets)
    batch = _batch_size(source, settings.batch)
    rows = batch_of(source.feeds, batch)
    targets, wanted = _measured(teacher, source, targets, rows)
    first = {p.parameter.name: _array(p.parameter.start) for p in source.network.parameters}
    feed = {**rows, **_given(settings.loss, wanted, batch), **first}
    variants = Variants(timed=settings.timed)
    graph = training_graph(source.network, targets, settings.loss, feed, source.folder, variants)
    _save(source, settings, targets, teacher, graph, folder)
    write_atomically(folder / PARAMETERS, packed(first))
    held_out = {f"{i:05}/{n}": a for i, f in enumerate(source.held_out) for n, a in f.items()}
    write_atomically(folder / HELD_OUT, packed(held_out))
    manifest = _manifest(source, settings, targets, graph, feed, batch)
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    manifest = msgspec.structs.replace(
        manifest, sha256={p.name: sha256_of(p) for p in files}, variants=variants.chosen
    )
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    write_atomically(folder / MANIFEST, content)
    return manifest


def batch_of(feeds: Sequence[Feed], rows: int) -> Feed:
    """Return rows of samples as one feed; the samples are used again if there are too few.

    Raises:
        DataError: their shapes differ.
    """
    return {n: np.resize(a, (rows, *a.shape[1:])) for n, a in joined(feeds).items()}


def joined(feeds: Sequence[Feed]) -> Feed:
    """Return samples as one feed, one after another along the leading axis.

    Raises:
        DataError: their shapes differ.
    """
    for feed in feeds:
        for name, first in feeds[0].items():
            if feed[name].shape[1:] != first.shape[1:]:
                raise DataError(
                    f"samples of input '{name}' have shapes {first.shape} and {feed[name].shape}; "
                    "training needs samples of one shape"
                )
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _batch_size(source: JobSource, wanted: int) -> int:
    """Return how many rows the graph takes: those of the model, or as many as memory allows."""
    fixed = {fixed_dim(s.shape[0]) for s in source.inputs if s.shape} - {None}
    if fixed:
        return int(max(n for n in fixed if n is not None))
    one = batch_of(source.feeds[:1], 1)
    values = trace(source.model, one, source.folder).shapes.values()
    each = 4 * _COPIES * sum(int(np.prod(shape)) for shape in values)
    batch = wanted
    while batch > 1 and batch * each > _MEMORY:
        batch //= 2
    return batch


def _measured(
    teacher: Model, source: JobSource, targets: Sequence[Target], rows: Feed
) -> tuple[list[Target], dict[str, np.ndarray]]:
    """Return targets with their signal, and what they are of a batch."""
    session = open_session(to_bytes(teacher), folder=source.folder)
    names = [t.tensor for t in targets]
    sums = np.zeros((len(names), 2))
    for feed in islice(source.feeds, _MEASURED_ON):
        for i, found in enumerate(run(session, feed, names, where="a calibration sample")):
            sums[i] += float(np.square(found, dtype=np.float64).sum()), found.size
    signals = [float(total / count) or 1.0 for total, count in sums]
    measured = [replace(t, signal=s) for t, s in zip(targets, signals, strict=True)]
    return measured, dict(zip(names, run(session, rows, names, where="a batch"), strict=True))


def _given(loss: Loss, wanted: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
    """Return what the loss reads beside the outputs."""
    if loss.kind == "labels":
        return {LABELS: np.zeros(batch, np.int64)}
    return {target_input(name): array for name, array in wanted.items()}


def _save(
    source: JobSource,
    settings: JobSettings,
    targets: Sequence[Target],
    teacher: Model,
    graph: TrainingGraph,
    folder: Path,
) -> None:
    save_model(source.network.model, folder / FORWARD)
    save_model(teacher, folder / TEACHER)
    save_model(evaluation_graph(source.network, targets, settings.loss), folder / EVAL)
    save_model(graph.model, folder / TRAIN)


def _manifest(
    source: JobSource,
    settings: JobSettings,
    targets: Sequence[Target],
    graph: TrainingGraph,
    feed: Feed,
    batch: int,
) -> Manifest:
    def described(name: str) -> Array:
        return Array(name=name, shape=feed[name].shape, dtype=feed[name].dtype.name)

    labelled = settings.loss.kind == "labels"
    outputs = [v.name or "" for v in graph.model.graph.outputs]
    return Manifest(
        ptq=__version__,
        method=settings.method,
        weight_bits=settings.weight_bits,
        activation_bits=settings.activation_bits,
        batch=batch,
        inputs=tuple(described(n) for n in source.network.data),
        targets=() if labelled else tuple(described(target_input(t.tensor)) for t in targets),
        loss=settings.loss,
        outputs=tuple(outputs[: outputs.index(LOSS)]),
        parameters=_parameters(source.network, graph),
        untrained=tuple(_untrained(f) for f in graph.frozen),
        sha256={},
        config=settings.config,
        keep_float=settings.keep_float,
        labels=LABELS if labelled else None,
    )


def _parameters(network: Network, graph: TrainingGraph) -> tuple[TrainedArray, ...]:
    found = []
    for placed in network.parameters:
        p = placed.parameter
        found.append(
            TrainedArray(
                name=p.name,
                shape=_array(p.start).shape,
                role=p.role,
                site=placed.site,
                rate=p.rate,
                decay=p.decay,
                positive=p.positive,
                gradient=gradient_output(p.name) if p.name in graph.trained else None,
                becomes=state_output(p.name) if p.name in network.states else None,
            )
        )
    return tuple(found)


def _untrained(frozen: Frozen) -> Untrained:
    return Untrained(
        name=frozen.value, node=frozen.node, op_type=frozen.op_type, reason=frozen.reason
    )


def _array(start: np.ndarray) -> np.ndarray:
    return np.asarray(start, np.float32)
