"""Opening the arrays in an ``.npz`` or ``.npy`` file as streams."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ptq.data.feeds import Array
from ptq.data.npy import NpyHeader, RowReader, read_header, read_whole
from ptq.errors import DataError

_NPY = ".npy"
_ENCRYPTED = 0x1
# the names in an archive are decoded; an unknown way of packing is "not implemented"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)


@contextmanager
def damage_as_data_error(where: str) -> Iterator[None]:
    """Turn the errors of reading a file, which may be cut short or damaged, into `DataError`."""
    try:
        yield
    except _DAMAGE as error:
        raise DataError(f"{where}: cannot be read ({error}); save it again with numpy") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{where}: cannot be read ({reason}); check the file") from error


@dataclass(frozen=True, slots=True)
class ArrayStream:
    """One stored array: its header, and the open stream of its values.

    Attributes:
        stream: of the whole ``.npy``, seekable; seeking back in an archive unpacks it again.
        header: shape, type and order.
        where: names the array in errors.
    """

    stream: IO[bytes]
    header: NpyHeader
    where: str

    def rows(self) -> RowReader:
        """Return a reader of rows in increasing order."""
        return RowReader(self.stream, self.header, self.where)

    def whole(self) -> Array:
        """Return the whole array."""
        with damage_as_data_error(self.where):
            return read_whole(self.stream, self.header, self.where)


class ArrayContainer:
    """The arrays in a file, by key; open while in its ``with`` block.

    An ``.npy`` has one array, whose key is the file's stem.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> ArrayContainer:
        if self.path.suffix.lower() != _NPY:
            with damage_as_data_error(str(self.path)):
                self._archive = self._stack.enter_context(zipfile.ZipFile(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        """Yield the keys of the arrays, in the order of the file."""
        if self._archive is None:
            yield self.path.stem
        else:
            yield from (name.removesuffix(_NPY) for name in self._archive.namelist())

    def open(self, key: str) -> ArrayStream:
        """Return the array of a key, its header read.

        Raises:
            DataError: the file is damaged, encrypted, or not an array.
        """
        if self._archive is None:
            where = str(self.path)
            with damage_as_data_error(where):
                stream: IO[bytes] = self._stack.enter_context(self.path.open("rb"))
                size_bytes = self.path.stat().st_size
                return ArrayStream(stream, read_header(stream, size_bytes, where), where)
        where = f"{self.path}: array '{key}'"
        with damage_as_data_error(where):
            info = self._archive.getinfo(self._member(key))
            if info.flag_bits & _ENCRYPTED:
                raise DataError(f"{where}: is encrypted; save it without a password")
            stream = self._stack.enter_context(self._archive.open(info))
            return ArrayStream(stream, read_header(stream, info.file_size, where), where)

    def _member(self, key: str) -> str:
        assert self._archive is not None
        names = self._archive.namelist()
        return key + _NPY if key + _NPY in names else key


def load_arrays(path: Path) -> dict[str, Array]:
    """Return all arrays in an ``.npz`` or ``.npy`` file, without unpickling anything.

    Raises:
        DataError: the file is damaged, or holds anything but plain arrays.
    """
    with ArrayContainer(path) as container:
        return {key: container.open(key).whole() for key in container}
