"""The ``test_data_set_*`` folders of the ONNX model zoo: serialized tensors ``input_0.pb`` ..."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ptq.data.containers import damage_as_data_error
from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Array, Feed
from ptq.data.files import data_files, subdirectories
from ptq.errors import ConfigError, DataError

_INPUT = re.compile(r"input_([0-9]+)\.pb")


class ModelZooFolders(Dataset):
    """One complete feed in each folder: a tensor for each input.

    The tensors are matched by name if every one of them has the name of another input, and else
    by number: ``input_0.pb`` is for the model's first input.
    """

    kind = "test_data_set folders"
    form = "a directory of test_data_set_* folders (input_0.pb and so on)"

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the source is such a folder, or a directory with some."""
        return bool(_folders(Path(source)))

    def __init__(self, request: DataRequest) -> None:
        super().__init__(request)
        if request.tensor_parser is None:
            raise ConfigError(
                f"{self.source}: .pb tensors need a parser; pass tensor_parser to open_dataset"
            )
        self._parse = request.tensor_parser
        self._folders = _folders(Path(request.source))
        self._choose(len(self._folders), request.samples)

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for i in self._chosen():
            folder = self._folders[i]
            yield str(folder), self._named([self._read(path) for path in _tensors(folder)], folder)

    def _read(self, path: Path) -> tuple[str, Array]:
        with damage_as_data_error(str(path)):
            content = path.read_bytes()
        try:
            return self._parse(content)
        except ValueError as error:
            raise DataError(f"{path}: cannot be read ({error}); download it again") from error

    def _named(self, tensors: list[tuple[str, Array]], folder: Path) -> Feed:
        wanted = [spec.name for spec in self.inputs]
        by_name = dict(tensors)
        if len(by_name) == len(tensors) and by_name.keys() <= set(wanted):
            return by_name
        if len(tensors) > len(wanted):
            raise DataError(
                f"{folder}: has {len(tensors)} inputs, and the model wants {len(wanted)}: "
                f"{', '.join(wanted)}; remove the others"
            )
        return {name: value for name, (_, value) in zip(wanted, tensors, strict=False)}


def _tensors(folder: Path) -> list[Path]:
    return [path for path in data_files(folder, (".pb",)) if _INPUT.fullmatch(path.name)]


def _folders(path: Path) -> list[Path]:
    if _tensors(path):
        return [path]
    named = [sub for sub in subdirectories(path) if sub.name.startswith("test_data_set_")]
    return [sub for sub in named if _tensors(sub)]
