"""Samples while they are read: each feed once, with what the teacher makes of it, into files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ptq.data import Dataset, hash_feed
from ptq.data.feeds import Feed, format_shape
from ptq.errors import DataError, TrainingError
from ptq.train import manifest as contract
from ptq.train.job import Job
from ptq.train.manifest import Array
from ptq.train.passes import RowPasses
from ptq.train.rows import RowWriter
from ptq.train.sample_rows import Samples, blocks_of, row_digest


class Collecting:
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
            fitting = "what has that shape" if self.misfit else "all of it"
            held = f"{fitting} is held out to judge what is trained"
            whys = [self.misfit, held if self.misfits < len(self.kept) else ""]
            raise DataError(
                f"{data.source}: {', and '.join(filter(None, whys))}; give other data, or export "
                "the job anew"
            )
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
        return row_digest(own) not in self.apart

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
