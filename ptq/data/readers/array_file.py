"""One ``.npz`` (or ``.npy``) file with all samples stacked along the leading axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ptq.data.containers import ArrayContainer, ArrayStream, damage_as_data_error
from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Array, Feed, InputSpec, check_names, check_shape
from ptq.data.keys import match_keys
from ptq.errors import DataError


@dataclass(frozen=True, slots=True)
class _Column:
    """How the array of one input is cut into samples.

    Attributes:
        key: the array's name in the file.
        spec: the input it is for.
        shape: the array's shape.
        rows: entries of the leading axis that make one sample and are its batch; ``None`` if each
            entry is a whole array for the input; 0 if all of the array serves every sample.
    """

    key: str
    spec: InputSpec
    shape: tuple[int, ...]
    rows: int | None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of the array in each feed."""
        if self.rows:
            return (self.rows, *self.shape[1:])
        return self.shape[1:]


class ArrayFile(Dataset):
    """Samples along the leading axis of every array of one file, which is never held whole.

    The rank of an array says how it is cut, given an input of rank r:

    - rank r: the leading axis is samples and batch in one. A sample is one entry, kept as a batch
      of 1; if the model fixes its batch at B, a sample is B successive entries, the next sample
      the next B, and a rest smaller than B is left out with a notice.
    - rank r + 1: each entry is the whole array for the input. States without a batch axis, or
      scalars that change, are stored so.
    - rank 0: the one value serves every sample.
    - unknown r: as rank r.

    An array in Fortran order has its samples scattered over the file, so it is loaded whole, with
    a notice. In an ``.npz`` memory does not grow with the number of samples; samples that are
    skipped still are unpacked.
    """

    kind = "array file"
    form = "an .npz file (one array for each input, samples along the leading axis)"

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the source is an ``.npz`` or ``.npy`` file."""
        path = Path(source)
        return path.suffix.lower() in (".npz", ".npy") and path.is_file()

    def __init__(self, request: DataRequest) -> None:
        super().__init__(request)
        self._path = Path(request.source)
        with ArrayContainer(self._path) as container:
            self._columns = [
                _column(key, spec, container.open(key).header.shape, self.source)
                for key, spec in self._inputs_by_key(list(container))
            ]
        for column in self._columns:
            check_shape(column.sample_shape, column.spec, f"{self.source} sample 0")
        stacked = [column for column in self._columns if column.rows != 0]
        if not stacked:
            self._choose(1, request.samples)
            return
        self._check_agreement(stacked)
        first = stacked[0]
        self._choose_rows(first.shape[0], first.rows or 1, request.samples)

    def _inputs_by_key(self, keys: list[str]) -> list[tuple[str, InputSpec]]:
        if self._path.suffix.lower() == ".npy" and len(self.inputs) == 1:
            return [(keys[0], self.inputs[0])]
        matched = match_keys(keys, self.inputs, self.notice)
        check_names(list(matched.values()), self.inputs, self.source)
        key_of = {name: key for key, name in matched.items()}
        return [(key_of[spec.name], spec) for spec in self.inputs]

    def _check_agreement(self, columns: list[_Column]) -> None:
        counts = {column.key: column.shape[0] // (column.rows or 1) for column in columns}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"'{key}' {count}" for key, count in counts.items())
            raise DataError(
                f"{self.source}: the arrays differ in their number of samples: {listed}; give "
                "each as many entries along its leading axis (a 0-d array serves all samples)"
            )

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        with ArrayContainer(self._path) as container:
            cuts = {
                column.spec.name: self._cut(column, container.open(column.key))
                for column in self._columns
            }
            for i in self._chosen():
                where = f"{self.source} sample {i}"
                with damage_as_data_error(where):
                    feed = {name: cut(i) for name, cut in cuts.items()}
                yield where, feed

    def _cut(self, column: _Column, array: ArrayStream) -> Callable[[int], Array]:
        """Return the function that gives the column's part of sample ``i``, for increasing i."""
        if column.rows == 0:
            value = array.whole()
            return lambda _: value
        rows, shape = column.rows or 1, column.sample_shape
        if array.header.fortran:
            self.notice(
                f"array '{column.key}' is in Fortran order and was loaded whole; "
                "save numpy.ascontiguousarray of it to use less memory"
            )
            whole = array.whole()
            return lambda i: whole[i * rows : (i + 1) * rows].reshape(shape)
        reader = array.rows()
        return lambda i: reader.read(i * rows, rows).reshape(shape)


def _column(key: str, spec: InputSpec, shape: tuple[int, ...], where: str) -> _Column:
    if shape == ():
        return _Column(key, spec, shape, rows=0)
    if spec.shape is None or len(shape) == len(spec.shape):
        return _Column(key, spec, shape, rows=spec.batch)
    if len(shape) != len(spec.shape) + 1:
        check_shape(shape, spec, where)
    return _Column(key, spec, shape, rows=None)
