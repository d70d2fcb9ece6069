"""Finding the reader for a source of data."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import ptq.data.readers
from ptq.data.dataset import DataRequest, Dataset, TensorParser
from ptq.data.feeds import InputSpec
from ptq.data.image_options import ImageOptions
from ptq.errors import ConfigError, DataError


def data_readers() -> list[type[Dataset]]:
    """Return every reader: the concrete data sets in the modules of `ptq.data.readers`."""
    package = ptq.data.readers
    found = []
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        members = vars(importlib.import_module(module.name)).values()
        found += [
            member
            for member in members
            if inspect.isclass(member)
            and issubclass(member, Dataset)
            and not inspect.isabstract(member)
            and member.__module__ == module.name
        ]
    return found


def data_forms() -> str:
    """Return all the ways to supply data, as one line."""
    return ", ".join(sorted(reader.form for reader in data_readers()))


def open_dataset(
    source: str | os.PathLike[str],
    inputs: Sequence[InputSpec],
    *,
    samples: int | None = None,
    seed: int = 0,
    images: ImageOptions | None = None,
    tensor_parser: TensorParser | None = None,
) -> Dataset:
    """Return the data at a source, as feeds for the model's inputs.

    Args:
        source: a path, ``package.module:function``, or ``random`` (data in a directory of that
            name is ``./random``).
        inputs: what the model wants.
        samples: how many samples to use: evenly spaced ones of a source that has a length, else
            the first ones; ``None`` for all. More than there are is a notice, not an error.
        seed: seeds ``random``.
        images: how to prepare images; ``None`` follows the model's input shape.
        tensor_parser: bytes of a serialized TensorProto -> its name and value, raising ValueError
            on other bytes; needed for ``test_data_set_*`` folders only.

    Raises:
        ConfigError: there is no data at the source, or an option does not fit it.
        DataError: the data cannot be read, or does not fit the model. Much of this shows only
            during iteration, which raises the same.
    """
    if not os.fspath(source):
        raise ConfigError(f"no data was given; give one of: {data_forms()}")
    request = DataRequest(os.fspath(source), tuple(inputs), samples, seed, images, tensor_parser)
    try:
        reader = _reader_for(request.source)
    except OSError as error:
        raise ConfigError(f"cannot read '{source}': {error.strerror}; check the path") from error
    return reader(request)


def _reader_for(source: str) -> type[Dataset]:
    accepting = [reader for reader in data_readers() if reader.accepts(source)]
    if not accepting:
        raise _no_data(source)
    if len(accepting) > 1:
        kinds = " and ".join(reader.kind for reader in accepting)
        remedy = "keep one kind of data in it"
        if any(reader.synthetic for reader in accepting):
            # Made-up data is never used in place of data that is there.
            remedy = f"write './{source}' if the path is meant, or rename it"
        raise ConfigError(f"'{source}' could be read as {kinds}; {remedy}")
    return accepting[0]


def _no_data(source: str) -> ConfigError | DataError:
    forms = f"give one of: {data_forms()}"
    path = Path(source)
    if not path.exists():
        return ConfigError(f"there is no data at '{source}'; {forms}")
    if path.is_dir() and not any(_visible(path)):
        return DataError(f"directory '{source}' is empty; {forms}")
    what = "directory" if path.is_dir() else "file"
    return ConfigError(f"{what} '{source}' holds no data of a known kind; {forms}")


def _visible(directory: Path) -> Iterator[Path]:
    return (child for child in directory.iterdir() if not child.name.startswith("."))
