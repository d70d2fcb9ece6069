"""Samples in any order with bounded memory: data and targets, in files while training goes on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ptq.data import Dataset, ImageOptions, open_dataset, read_labels, select_labels
from ptq.data.feeds import Feed, InputSpec
from ptq.data.held_feeds import HeldFeeds
from ptq.errors import ConfigError, TrainingError
from ptq.graph.load import input_specs, load_model
from ptq.graph.protos import parse_tensor
from ptq.progress import Stages
from ptq.train import manifest as contract
from ptq.train.arrays import read_arrays
from ptq.train.collecting import Collecting
from ptq.train.job import Job
from ptq.train.sample_rows import Samples, blocks_of

__all__ = [
    "Samples", "blocks_of", "collect", "held_out", "held_out_data", "labels_for", "open_data",
]  # fmt: skip


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
        collecting = Collecting(job, stack, folder, threads)
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
    label = None if contract.LABELS in {spec.name for spec in specs} else contract.LABELS
    feeds: dict[str, Feed] = {}
    for key, array in read_arrays(path).items():
        number, _, name = key.partition("/")
        feeds.setdefault(number, {})[name] = array
    labels = [feed.pop(label) for feed in feeds.values() if label in feed]
    if not feeds or len(labels) not in (0, len(feeds)):
        raise TrainingError(f"'{path}' has no feeds, or labels of some only; export the job anew")
    classes = np.concatenate([np.atleast_1d(array) for array in labels]) if labels else None
    return HeldFeeds(list(feeds.values()), specs), classes


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
