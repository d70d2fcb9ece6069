"""What blocks read and put out, sample by sample on disk: memory does not grow with the samples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptq.numerics.arrays import AnyArray


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Samples of several tensors, all of one shape each, memory-mapped.

    Attributes:
        arrays: by name; the first axis is that of the samples.
    """

    arrays: Mapping[str, AnyArray]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.arrays.values())))

    def rows(self, name: str, samples: Sequence[int]) -> AnyArray:
        """Return a tensor of some samples, one behind the other along its own first axis."""
        found: AnyArray = self.arrays[name][np.asarray(samples)]
        return found.reshape(-1, *found.shape[2:]) if found.ndim > 1 else found[0]


class StreamWriter:
    """Writes samples, those of equal shapes together.

    Args:
        folder: where the files are.
        most_bytes: no more than so many are written; later samples are dropped.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.left = most_bytes
        self._files: dict[tuple[object, ...], _Files] = {}

    def add(self, sample: Mapping[str, AnyArray]) -> bool:
        """Write a sample; return whether there was room for it. The first one has room."""
        size = sum(array.nbytes for array in sample.values())
        if size > self.left and self._files:
            return False
        self.left -= size
        key = tuple((n, a.shape, a.dtype.str) for n, a in sample.items())
        if key not in self._files:
            self._files[key] = _Files.of(self.folder / str(len(self._files)), sample)
        self._files[key].add(sample)
        return True

    def streams(self) -> tuple[Stream, ...]:
        """Return what was written; those with the most samples first."""
        found = [files.stream() for files in self._files.values()]
        return tuple(sorted(found, key=len, reverse=True))


class _Files:
    """One file for each tensor."""

    def __init__(self, paths: Mapping[str, Path], sample: Mapping[str, AnyArray]) -> None:
        self.paths = paths
        self.shapes = {name: array.shape for name, array in sample.items()}
        self.dtypes = {name: array.dtype for name, array in sample.items()}
        self.count = 0

    @classmethod
    def of(cls, folder: Path, sample: Mapping[str, AnyArray]) -> _Files:
        folder.mkdir()
        return cls({name: folder / str(i) for i, name in enumerate(sample)}, sample)

    def add(self, sample: Mapping[str, AnyArray]) -> None:
        for name, path in self.paths.items():
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(sample[name]).tobytes())
        self.count += 1

    def stream(self) -> Stream:
        return Stream({name: self._mapped(name) for name in self.paths})

    def _mapped(self, name: str) -> AnyArray:
        shape = (self.count, *self.shapes[name])
        if 0 in shape:
            return np.zeros(shape, self.dtypes[name])
        # as a plain array: slices of a memmap are slow to make
        return np.asarray(np.memmap(self.paths[name], self.dtypes[name], "r", shape=shape))


@contextmanager
def streamed(
    samples: Iterable[Mapping[str, AnyArray]], most_bytes: int
) -> Iterator[tuple[Stream, ...]]:
    """Write samples into a temporary folder, which goes away with the context, whatever happens.

    Args:
        samples: arrays by the names of tensors; one sample is in memory at a time.
        most_bytes: no more than so many are written.

    Yields:
        Streams, one for each set of shapes.
    """
    with tempfile.TemporaryDirectory(prefix="ptq-blocks-") as folder:
        writer = StreamWriter(Path(folder), most_bytes)
        for sample in samples:
            if not writer.add(sample):
                break
        yield writer.streams()
