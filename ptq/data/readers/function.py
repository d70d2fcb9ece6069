"""A Python function that yields feeds, named as ``package.module:function``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import numpy as np

from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Array, Feed
from ptq.data.function import FUNCTION, error_in_short, find_function
from ptq.errors import DataError, PtqError

_END = object()


class FunctionDataset(Dataset):
    """What a function gives: it is called without arguments for every pass over the data.

    It returns an iterable of feeds, each a mapping from the names of the inputs to arrays, batch
    axis included. ``samples`` takes the first ones and asks for no more. The module is imported
    with the current directory in front of the search path. What the function raises becomes a
    `DataError` that names it.

    ``len`` goes through the data once, unless a pass has counted it; for a progress bar there is
    ``expected``.
    """

    kind = "function"
    form = "package.module:function (called without arguments, yields a dict of arrays per sample)"

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the source is ``package.module:function`` and no path."""
        if source.startswith("random:") or Path(source).exists():
            return False
        return FUNCTION.fullmatch(source) is not None

    def __init__(self, request: DataRequest) -> None:
        super().__init__(request)
        self._samples = request.samples
        self._function = find_function(request.source, "a function that yields feeds")
        self._length: int | None = None

    @property
    def expected(self) -> int | None:
        """The number of samples counted or asked for, if any; there may be fewer than asked for."""
        return self._samples if self._length is None else self._length

    def __len__(self) -> int:
        if self._length is None:
            self._length = sum(1 for _ in self._items())
        return self._length

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        i = -1
        for i, item in enumerate(self._items()):
            where = f"function '{self.source}' feed {i}"
            yield where, _as_feed(item, where)
        self._length = i + 1
        if self._samples is not None and self._length < self._samples:
            self.notice(f"gives {self._length} samples, fewer than the {self._samples} asked for")

    def _items(self) -> Iterator[object]:
        with self._blamed("when called"):
            items = islice(self._call(), self._samples)
        for i in count():
            with self._blamed(f"at feed {i}"):
                item = next(items, _END)
            if item is _END:
                return
            yield item

    def _call(self) -> Iterable[object]:
        result = self._function()
        if isinstance(result, Mapping) or not isinstance(result, Iterable):
            raise DataError(
                f"function '{self.source}' returned {_a(result)}; "
                "let it yield one dict of arrays for each sample"
            )
        return result

    @contextmanager
    def _blamed(self, when: str) -> Iterator[None]:
        """Name the function in whatever its code raises."""
        try:
            yield
        except PtqError:
            raise
        except Exception as error:
            raise DataError(
                f"function '{self.source}' raised {error_in_short(error)} {when}"
            ) from error


def _as_feed(item: object, where: str) -> Feed:
    if not isinstance(item, Mapping):
        raise DataError(f"{where} is {_a(item)}; yield a dict from input names to arrays")
    return {str(name): _as_array(value, f"{where}: input '{name}'") for name, value in item.items()}


def _as_array(value: object, where: str) -> Array:
    try:
        array = np.array(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} is {_a(value)}, not an array ({error}); yield arrays") from error
    if array.dtype.kind == "O" and not all(isinstance(entry, str) for entry in array.flat):
        raise DataError(f"{where} is {_a(value)}, not an array of numbers; yield arrays")
    return array


def _a(value: object) -> str:
    return f"a {type(value).__name__}"
