"""A directory of ``.npy`` files, or of one directory of them for each input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptq.data.containers import load_arrays
from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Feed, check_names
from ptq.data.files import data_files, subdirectories
from ptq.errors import DataError

_SUFFIX = (".npy",)


class NpyDirectory(Dataset):
    """One complete array in each file, batch axis included; shapes may differ between files.

    A model of one input may have its files in the directory itself. Else there is a directory for
    each input, of its name, and files of the same name in each of them belong together.
    """

    kind = "directory of .npy files"
    form = "a directory of .npy files (in one subdirectory for each input, if there are several)"

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether there are ``.npy`` files in the directory or in one right below it."""
        path = Path(source)
        return bool(data_files(path, _SUFFIX)) or any(_array_directories(path))

    def __init__(self, request: DataRequest) -> None:
        super().__init__(request)
        directory = Path(request.source)
        files = {"": data_files(directory, _SUFFIX)}
        if files[""]:
            if len(self.inputs) != 1:
                wanted = ", ".join(spec.name for spec in self.inputs)
                raise DataError(
                    f"{self.source}: .npy files do not say which input they are for, and the model "
                    f"wants: {wanted}; put them in one subdirectory for each input"
                )
            files = {self.inputs[0].name: files[""]}
        else:
            files = {d.name: data_files(d, _SUFFIX) for d in _array_directories(directory)}
            check_names(files, self.inputs, self.source)
            _check_same_names(files, self.source)
        self._files = files
        self._choose(len(next(iter(files.values()))), request.samples)

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for i in self._chosen():
            paths = {name: files[i] for name, files in self._files.items()}
            feed = {name: load_arrays(path)[path.stem] for name, path in paths.items()}
            yield ", ".join(map(str, paths.values())), feed


def _array_directories(directory: Path) -> Iterator[Path]:
    return (sub for sub in subdirectories(directory) if data_files(sub, _SUFFIX))


def _check_same_names(files: dict[str, list[Path]], source: str) -> None:
    names = {name: {path.name for path in paths} for name, paths in files.items()}
    everything = set().union(*names.values())
    for name, present in names.items():
        lacking = sorted(everything - present)
        if lacking:
            raise DataError(
                f"{source}: input '{name}' has no file '{lacking[0]}', and another input has; "
                "give files of the same names for all inputs"
            )
