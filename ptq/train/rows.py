"""Rows that come one after another, and are read in any order: an ``.npy`` file that grows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from ptq.errors import TrainingError


class RowWriter:
    """Writes rows to a file as they come, so that memory does not grow with them.

    Args:
        row: shape of one row.
        dtype: type of the values.
        folder: where room for them is; a file without a name is made there, which is gone with the
            process, however it ends.
        path: the name of the file, if it is to have one.

    Raises:
        TrainingError: the file cannot be made.
    """

    def __init__(
        self, row: Sequence[int], dtype: np.dtype[Any], folder: Path, path: Path | None = None
    ) -> None:
        self.row = tuple(row)
        self.dtype = dtype
        self.count = 0
        try:
            self._file: IO[bytes] = (
                path.open("w+b") if path is not None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed on leaving
            )
        except OSError as error:
            raise TrainingError(
                f"cannot write samples to '{path or folder}': {error.strerror}"
            ) from error
        self._start = self._write_header()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """Write rows, of shape ``(n, *row)``, behind those that are there."""
        assert rows.shape[1:] == self.row
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.count += len(rows)

    def finish(self) -> np.ndarray:
        """Return the rows, read from the file when they are asked for."""
        self._file.seek(0)
        # the header has room for any number of rows, so that it stays as long as it was
        assert self._write_header() == self._start
        self._file.flush()
        shape = (self.count, *self.row)
        if 0 in shape:
            return np.zeros(shape, self.dtype)
        return np.memmap(self._file, self.dtype, "r", self._start, shape)

    def _write_header(self) -> int:
        header = {
            "descr": npy_format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.count, *self.row),
        }
        npy_format.write_array_header_1_0(self._file, header)
        return self._file.tell()
