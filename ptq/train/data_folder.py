"""Samples as plain files in the folder of a job, for trainers that have no readers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from ptq.errors import ConfigError, TrainingError
from ptq.train.job import Job
from ptq.train.sample_rows import Samples

#: The folder with samples, in that of the job, and what says which file is what.
DATA, INDEX = "data", "index.json"


class DataIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What the files in the folder ``data`` of a job are.

    Attributes:
        rows: how many samples there are.
        inputs: the ``.npy`` file of each input, by name: ``(rows, *one row)``, or, if it is among
            ``shared``, what all rows share.
        targets: likewise of each target.
        shared: names of inputs that all rows share.
        labels: the file of the labels, int64 of shape ``(rows,)``.
    """

    rows: int
    inputs: dict[str, str]
    targets: dict[str, str]
    shared: tuple[str, ...] = ()
    labels: str | None = None


@contextmanager
def data_folder(job: Job) -> Iterator[Path]:
    """Yield an empty folder for samples in that of the job, which is gone afterwards.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = job.path(DATA)
    # from a run that was killed
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise ConfigError(f"cannot make '{folder}': {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_samples(job: Job) -> Samples:
    """Return the samples in the folder of a job, as a trainer in another process finds them.

    Raises:
        TrainingError: there are none.
    """
    folder = job.path(DATA)
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=DataIndex)
    except (OSError, msgspec.MsgspecError) as error:
        raise TrainingError(f"'{folder}' holds no samples ({error}); run: ptq qat run") from error

    def opened(name: str, file: str) -> np.ndarray:
        whole = name in index.shared or file == index.labels
        array: np.ndarray = np.load(folder / file, None if whole else "r", allow_pickle=False)
        return array

    inputs = {name: opened(name, file) for name, file in index.inputs.items()}
    targets = {name: opened(name, file) for name, file in index.targets.items()}
    labels = None if index.labels is None else opened("", index.labels)
    blocks = {
        name: 0 if name in index.shared else array.shape[1]
        for name, array in (*inputs.items(), *targets.items())
    }
    return Samples(inputs, targets, labels, index.rows, blocks)


def write_index(folder: Path, samples: Samples) -> None:
    """Write what the files are, and those that are not there yet."""
    files = {
        name: f"{number}.npy" for number, name in enumerate((*samples.inputs, *samples.targets))
    }
    shared = tuple(name for name in samples.inputs if not samples.blocks[name])
    for name in shared:
        np.save(folder / files[name], samples.inputs[name], allow_pickle=False)
    labels = None
    if samples.labels is not None:
        labels = "labels.npy"
        np.save(folder / labels, samples.labels, allow_pickle=False)
    index = DataIndex(
        rows=samples.rows,
        inputs={name: files[name] for name in samples.inputs},
        targets={name: files[name] for name in samples.targets},
        shared=shared,
        labels=labels,
    )
    (folder / INDEX).write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2))
