"""Samples in any order with bounded memory: data and targets, in files while training goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptq.data import Dataset, ImageOptions, hash_feed, open_dataset, read_labels, select_labels
from ptq.data.feeds import Feed, InputSpec, format_shape
from ptq.data.held_feeds import HeldFeeds
from ptq.errors import ConfigError, DataError, TrainingError
from ptq.graph.load import input_specs, load_model
from ptq.graph.protos import parse_tensor
from ptq.progress import Stages
from ptq.train import manifest as contract
from ptq.train.arrays import read_arrays
from ptq.train.job import Job
from ptq.train.manifest import Array
from ptq.train.passes import RowPasses
from ptq.train.rows import RowWriter

#: The array of held-out feeds that has the classes of their rows.
LABELS = "labels"


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Rows of data, with what is aimed at.

    Attributes:
        inputs: of the network, by name: shape ``(rows, *one row)``, or what all rows share.
        targets: of the training graph, likewise.
        labels: int64, the class of each row, if there are labels.
        rows: how many.
        blocks: how many entries along axis 0 of the graph's input each row has; 0 if all share it.
        digest: SHA-256 of the data, in hexadecimal.
        notices: what a user should know, a line each.
    """

    inputs: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    rows: int
    blocks: Mapping[str, int]
    digest: str = ""
    notices: tuple[str, ...] = ()

    def feed(self, rows: np.ndarray | slice) -> Feed:
        """Return the inputs and targets of some rows, by name, as the graph takes them."""
        return {
            name: self._taken(name, array, rows)
            for name, array in (*self.inputs.items(), *self.targets.items())
        }

    def row_digests(self) -> set[bytes]:
        """Return what tells the inputs of a row from those of others, of all rows."""
        return {
            _row_digest(
                {name: array[row] for name, array in self.inputs.items() if self.blocks[name]}
            )
            for row in range(self.rows)
        }

    def _taken(self, name: str, array: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        if not self.blocks[name]:
            return np.asarray(array)
        taken = np.asarray(array[rows])
        return taken.reshape(-1, *taken.shape[2:])


def _row_digest(row: Mapping[str, np.ndarray]) -> bytes:
    hasher = hashlib.sha256()
    for name in sorted(row):
        hasher.update(np.ascontiguousarray(row[name]).tobytes())
    return hasher.digest()


def blocks_of(job: Job) -> dict[str, int]:
    """Return how many entries along axis 0 a row has of each input of the training graph.

    An input whose leading axis the batch does not divide is one that all rows share.
    """
    batch = job.manifest.batch
    return {
        a.name: a.shape[0] // batch if a.shape and a.shape[0] % batch == 0 else 0
        for a in (*job.manifest.inputs, *job.manifest.targets)
    }


def open_data(
    job: Job,
    source: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    images: ImageOptions | None = None,
) -> Dataset:
    """Return data for a job, as calibration reads it.

    Args:
        job: whose model it is for.
        source: in any form that calibration data has.
        samples: how many to use; ``None`` for all.
        seed: of made-up data.
        images: how to prepare images.

    Raises:
        ConfigError: there is no data at the source, or an option does not fit it.
        DataError: the data cannot be read, or does not fit the model.
    """
    data = open_dataset(
        source,
        _specs(job),
        samples=samples,
        seed=seed,
        images=images,
        tensor_parser=parse_tensor,
    )
    if images is not None and data.kind != "images":
        raise ConfigError("--image and --image-config need images as data; leave them out")
    return data


def labels_for(data: Dataset, path: Path) -> np.ndarray:
    """Return the classes of the rows that a data set gives, from a file.

    Raises:
        DataError: the file holds anything but classes, or not one for each row.
    """
    return select_labels(read_labels(path), data)


def collect(  # noqa: PLR0913 - a job, its data, and where to put it
    job: Job,
    data: Dataset,
    labels: np.ndarray | None = None,
    *,
    stages: Stages,
    threads: int = 1,
    folder: Path | None = None,
    apart: Samples | None = None,
) -> Samples:
    """Read data once through, run the teacher on it, and keep both in files.

    Feeds of another shape than the training graph was made for are left out, and counted.

    Args:
        job: what is to be trained.
        data: feeds of one row or several.
        labels: the class of each row.
        stages: told of every feed.
        threads: for onnxruntime.
        folder: where to write ``.npy`` files that stay; else they have no name, and are gone with
            the process.
        apart: samples whose rows are left out, too: those that judge what comes of the others.

    Raises:
        DataError: the data does not fit the model or the labels, or nothing of it is left.
        TrainingError: the teacher does not put out what the manifest says.
    """
    with ExitStack() as stack:
        collecting = _Collecting(job, stack, folder, threads)
        collecting.apart = set() if apart is None else apart.row_digests()
        name = "held out" if isinstance(data, HeldFeeds) else "samples"
        with stages.stage(name, data.expected) as step:
            for feed in data:
                collecting.add(feed)
                step()
        return collecting.finish(data, labels)


def held_out(job: Job, *, stages: Stages, threads: int = 1) -> Samples:
    """Return the held-out feeds of a job, with what the teacher makes of them.

    Raises:
        DataError: they do not fit the model.
        TrainingError: there are none, or labels of some only.
    """
    data, labels = held_out_data(job)
    return collect(job, data, labels, stages=stages, threads=threads)


def held_out_data(job: Job) -> tuple[HeldFeeds, np.ndarray | None]:
    """Return the held-out feeds of a job, and the classes of their rows if they have some.

    Raises:
        TrainingError: there are none, or labels of some only.
    """
    path = job.path(contract.HELD_OUT)
    specs = _specs(job)
    label = None if LABELS in {spec.name for spec in specs} else LABELS
    feeds: dict[str, Feed] = {}
    for key, array in read_arrays(path).items():
        number, _, name = key.partition("/")
        feeds.setdefault(number, {})[name] = array
    labels = [feed.pop(label) for feed in feeds.values() if label in feed]
    if not feeds or len(labels) not in (0, len(feeds)):
        raise TrainingError(f"'{path}' has no feeds, or labels of some only; export the job anew")
    classes = np.concatenate([np.atleast_1d(array) for array in labels]) if labels else None
    return HeldFeeds(list(feeds.values()), specs), classes


class _Collecting:
    """Samples while they are read."""

    def __init__(self, job: Job, stack: ExitStack, folder: Path | None, threads: int) -> None:
        manifest = job.manifest
        self.job = job
        self.blocks = blocks_of(job)
        for target in manifest.targets:
            if not self.blocks[target.name]:
                raise TrainingError(
                    f"target '{target.name}' of shape {format_shape(target.shape)} has no axis of "
                    f"samples, of which there are {manifest.batch}; export the job with batch 1"
                )
        self.arrays = {a.name: a for a in (*manifest.inputs, *manifest.targets)}
        path = job.path(contract.TEACHER)
        self.teacher = RowPasses(path, self.blocks, manifest.batch, threads)
        if manifest.targets and len(self.teacher.outputs) != len(manifest.targets):
            raise TrainingError(
                f"'{path}' has {len(self.teacher.outputs)} outputs, and the manifest "
                f"{len(manifest.targets)} targets; export the job anew"
            )
        self.writers = {
            name: stack.enter_context(self._writer(index, array, folder))
            for index, (name, array) in enumerate(self.arrays.items())
            if self.blocks[name]
        }
        self.shared: dict[str, np.ndarray] = {}
        self.hasher = hashlib.sha256()
        self.apart: set[bytes] = set()
        self.kept: list[np.ndarray] = []
        self.misfit, self.misfits = "", 0

    def add(self, feed: Feed) -> None:
        """Keep a feed if it has the shapes of the training graph."""
        feed = {a.name: feed[a.name] for a in self.job.manifest.inputs}
        rows = self._rows(feed)
        fits = all(self._fits(name, array) for name, array in feed.items())
        if not fits:
            self.misfits += 1
            self.kept.append(np.zeros(rows, bool))
            return
        stacked = {name: self._stacked(name, array, rows) for name, array in feed.items()}
        kept = np.array([self._is_kept(stacked, row) for row in range(rows)])
        self.kept.append(kept)
        if not kept.any():
            return
        hash_feed(self.hasher, feed)
        for name, array in stacked.items():
            if self.blocks[name]:
                self.writers[name].append(array[kept])
            elif not np.array_equal(self.shared.setdefault(name, array), array):
                raise DataError(
                    f"input '{name}' has no axis of samples, and differs between feeds; a training "
                    "graph takes one value of it for all"
                )
        if not self.job.manifest.targets:  # labels are aimed at
            return
        where = f"feed {len(self.kept)} of the data"
        found = self.teacher.run(feed, rows, self.teacher.outputs, where=where)
        for target, array in zip(self.job.manifest.targets, found, strict=True):
            if not self._fits(target.name, array):
                raise TrainingError(
                    f"the teacher gives target '{target.name}' in shape "
                    f"{format_shape(array.shape)}, and the training graph takes "
                    f"{format_shape(target.shape)}; export the job anew"
                )
            self.writers[target.name].append(self._stacked(target.name, array, rows)[kept])

    def finish(self, data: Dataset, labels: np.ndarray | None) -> Samples:
        """Return what was kept."""
        kept = np.concatenate(self.kept)
        if not kept.any():
            why = self.misfit or "all of it is held out to judge what is trained"
            raise DataError(f"{data.source}: {why}; give other data, or export the job anew")
        if labels is not None:
            if len(labels) != len(kept):
                raise DataError(
                    f"there are {len(labels)} labels, and {data.source} has {len(kept)} rows; give "
                    "one label for each"
                )
            labels = labels[kept]
            self.hasher.update(labels.tobytes())
        self.hasher.update(np.packbits(kept).tobytes())
        arrays = {name: writer.finish() for name, writer in self.writers.items()}
        arrays |= self.shared
        manifest = self.job.manifest
        return Samples(
            {a.name: arrays[a.name] for a in manifest.inputs},
            {a.name: arrays[a.name] for a in manifest.targets},
            labels,
            int(kept.sum()),
            self.blocks,
            self.hasher.hexdigest(),
            tuple(self._notices(data)),
        )

    def _notices(self, data: Dataset) -> list[str]:
        notices = list(data.notices)
        if self.misfits:
            notices.append(
                f"{data.source}: {self.misfits} of {len(self.kept)} samples are left out: "
                f"{self.misfit}"
            )
        return notices

    def _is_kept(self, stacked: Mapping[str, np.ndarray], row: int) -> bool:
        if not self.apart:
            return True
        own = {name: array[row] for name, array in stacked.items() if self.blocks[name]}
        return _row_digest(own) not in self.apart

    def _stacked(self, name: str, array: np.ndarray, rows: int) -> np.ndarray:
        """Return an array with an axis of rows in front, if they do not share it."""
        block = self.blocks[name]
        return array.reshape(rows, block, *array.shape[1:]) if block else array

    def _writer(self, index: int, array: Array, folder: Path | None) -> RowWriter:
        row = (self.blocks[array.name], *array.shape[1:])
        path = None if folder is None else folder / f"{index}.npy"
        return RowWriter(row, np.dtype(array.dtype), folder or self.job.folder, path)

    def _rows(self, feed: Feed) -> int:
        """Return how many rows a feed has, as its inputs agree."""
        counts = {
            name: len(array) // self.blocks[name]
            for name, array in feed.items()
            if self.blocks[name] and array.ndim
        }
        if len(set(counts.values())) != 1:
            listed = ", ".join(f"'{name}' {rows}" for name, rows in counts.items())
            raise DataError(
                f"the inputs differ in their number of rows: {listed or 'they have none'}; give "
                "each as many entries along its leading axis"
            )
        return next(iter(counts.values()))

    def _fits(self, name: str, array: np.ndarray) -> bool:
        wanted, block = self.arrays[name].shape, self.blocks[name]
        if block:
            fits = array.ndim > 0 and len(array) % block == 0 and array.shape[1:] == wanted[1:]
        else:
            fits = array.shape == wanted
        if not fits and not self.misfit:
            self.misfit = (
                f"'{name}' has shape {format_shape(array.shape)}, and the training graph was made "
                f"for {format_shape((None, *wanted[1:]) if block else wanted)}"
            )
        return fits


def _specs(job: Job) -> tuple[InputSpec, ...]:
    """Return what the user's model wants to be fed, or what the manifest says if it is not there.

    The model may fix its batch, or leave axes open, where the training graph does not.
    """
    path = job.path(contract.MODEL)
    if path.is_file():
        return tuple(input_specs(load_model(path)))
    blocks = blocks_of(job)
    return tuple(
        InputSpec(a.name, np.dtype(a.dtype), (None, *a.shape[1:]) if blocks[a.name] else a.shape)
        for a in job.manifest.inputs
    )
