"""Samples in any order: rows of data, with what is aimed at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ptq.data.feeds import Feed
from ptq.train.job import Job


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
            row_digest(
                {name: array[row] for name, array in self.inputs.items() if self.blocks[name]}
            )
            for row in range(self.rows)
        }

    def _taken(self, name: str, array: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        if not self.blocks[name]:
            return np.asarray(array)
        taken = np.asarray(array[rows])
        return taken.reshape(-1, *taken.shape[2:])


def row_digest(row: Mapping[str, np.ndarray]) -> bytes:
    """Return what tells the inputs of a row, by name, from those of others."""
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
