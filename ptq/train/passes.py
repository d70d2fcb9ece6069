"""Run a graph of a job over rows, in pieces of the batch that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ptq.data.feeds import Feed, fixed_dim
from ptq.runtime.session import open_session, run
from ptq.runtime.signature import session_inputs


class RowPasses:
    """A network that is run on any number of rows, a batch at a time.

    Args:
        path: the model.
        blocks: how many entries along axis 0 a row has of each input; 0 for one that all share.
        batch: the most rows of a run, where the model takes any number.
        threads: for onnxruntime.

    Raises:
        VerificationError: onnxruntime refuses the model.
    """

    def __init__(self, path: Path, blocks: Mapping[str, int], batch: int, threads: int) -> None:
        self.session = open_session(path, threads=threads)
        self.blocks = blocks
        self.outputs = tuple(value.name for value in self.session.get_outputs())
        fixed = [
            size // blocks[spec.name]
            for spec in session_inputs(self.session)
            if blocks.get(spec.name) and spec.shape and (size := fixed_dim(spec.shape[0]))
        ]
        self.fixed = bool(fixed)
        self.batch = fixed[0] if fixed else batch

    def run(
        self,
        feed: Feed,
        rows: int,
        outputs: Sequence[str],
        parameters: Mapping[str, np.ndarray] | None = None,
        where: str = "the samples",
    ) -> list[np.ndarray]:
        """Return outputs for so many rows.

        A model of fixed batch gets the last row again where rows are missing; what comes of that
        is cut off.

        Raises:
            DataError: onnxruntime fails on them.
        """
        pieces = []
        for start in range(0, rows, self.batch):
            stop = min(start + self.batch, rows)
            taken = self.batch if self.fixed else stop - start
            piece = {
                name: self._cut(array, self.blocks[name], start, stop, taken)
                for name, array in feed.items()
            }
            found = run(self.session, {**piece, **(parameters or {})}, outputs, where=where)
            pieces.append([_kept(a, taken, stop - start) for a in found])
        return [np.concatenate(p) if len(p) > 1 else p[0] for p in zip(*pieces, strict=True)]

    @staticmethod
    def _cut(array: np.ndarray, block: int, start: int, stop: int, taken: int) -> np.ndarray:
        if not block:
            return array
        cut = array[start * block : stop * block]
        if (more := taken - (stop - start)) > 0:
            cut = np.concatenate([cut, *[cut[-block:]] * more])
        return cut


def _kept(array: np.ndarray, taken: int, rows: int) -> np.ndarray:
    """Return what belongs to the first rows."""
    if rows == taken or not array.ndim:
        return array
    return array[: len(array) // taken * rows]
