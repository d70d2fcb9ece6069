"""A directory of ``.npz`` files, each one feed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptq.data.containers import load_arrays
from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Feed
from ptq.data.files import data_files
from ptq.data.keys import match_keys


class NpzDirectory(Dataset):
    """One complete feed in each file, batch axis included; shapes may differ between files.

    Files come in natural order of name (``2.npz`` before ``10.npz``).
    """

    kind = "directory of .npz files"
    form = "a directory of .npz files (each a complete feed)"

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the source is a directory with ``.npz`` files in it."""
        return bool(data_files(Path(source), (".npz",)))

    def __init__(self, request: DataRequest) -> None:
        super().__init__(request)
        self._files = data_files(Path(request.source), (".npz",))
        self._choose(len(self._files), request.samples)

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for i in self._chosen():
            arrays = load_arrays(self._files[i])
            input_of = match_keys(arrays, self.inputs, self.notice)
            yield str(self._files[i]), {name: arrays[key] for key, name in input_of.items()}
