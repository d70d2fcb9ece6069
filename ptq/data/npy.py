"""Reading the rows of a ``.npy`` stream one after another, without holding the array."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from ptq.data.feeds import Array
from ptq.errors import DataError

#: zipfile appends what it reads to one bytes object, which is quadratic in the size of the read.
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a ``.npy`` file says of its array before the values.

    Attributes:
        shape: the array's shape.
        dtype: its type, byte order as stored.
        fortran: whether it is stored column by column, so that its rows lie scattered.
        offset: bytes before the first value.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def row_bytes(self) -> int:
        """The size of one entry of the leading axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def read_header(stream: IO[bytes], size_bytes: int, where: str) -> NpyHeader:
    """Read the header at the start of a ``.npy`` stream, leaving the stream at the first value.

    Args:
        stream: at the start of the file.
        size_bytes: of the whole file, which must be what the header promises.
        where: names the array in errors.

    Raises:
        DataError: the stream is not a ``.npy`` file, is cut short, or holds Python objects.
    """
    try:
        version = npy_format.read_magic(stream)
        # Version 3 differs from 2 only in the names of fields, which no tensor has.
        read = {
            (1, 0): npy_format.read_array_header_1_0,
            (2, 0): npy_format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream)
    except (ValueError, KeyError, SyntaxError, TokenError) as error:
        # numpy runs headers that it cannot parse through tokenize, for files of Python 2
        raise DataError(f"{where}: not an array that numpy.save wrote; save it again") from error
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds Python objects, which would have to be unpickled; "
            "save a plain numeric array (arrays of unequal shape go in a file each)"
        )
    if dtype.fields is not None:
        raise DataError(f"{where}: is a structured array; save each field as an array of its own")
    offset = stream.tell()
    if size_bytes != offset + math.prod(shape) * dtype.itemsize:
        raise DataError(f"{where}: the file is cut short or damaged; save it again")
    return NpyHeader(shape, dtype, fortran, offset)


class RowReader:
    """Reads ranges of rows, in increasing order, from a ``.npy`` stream in C order."""

    def __init__(self, stream: IO[bytes], header: NpyHeader, where: str) -> None:
        self._stream = stream
        self._header = header
        self._where = where
        stream.seek(header.offset)
        self._row = 0

    def read(self, start: int, count: int) -> Array:
        """Return rows ``start`` to ``start + count`` as a new array; what lies before is skipped.

        Raises:
            DataError: the stream ends early or its checksum is wrong.
        """
        if start > self._row:
            self._stream.seek((start - self._row) * self._header.row_bytes, os.SEEK_CUR)
        rows = np.empty((count, *self._header.shape[1:]), self._header.dtype)
        # void: uint8 views of a 0-byte element type do not exist
        if rows.nbytes:
            self._fill(rows.reshape(-1).view(np.uint8).data)
        self._row = start + count
        return rows

    def _fill(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            piece = self._stream.read(min(_CHUNK, len(view) - done))
            if not piece:
                raise DataError(f"{self._where}: the file is cut short or damaged; save it again")
            view[done : done + len(piece)] = piece
            done += len(piece)


def read_whole(stream: IO[bytes], header: NpyHeader, where: str) -> Array:
    """Return the whole array, whatever its order; the stream may be anywhere."""
    stored = header.shape[::-1] if header.fortran else header.shape
    flat = NpyHeader((math.prod(stored),), header.dtype, False, header.offset)
    values = RowReader(stream, flat, where).read(0, math.prod(stored)).reshape(stored)
    return values.T if header.fortran else values
