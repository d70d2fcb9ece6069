"""The abstract data set: a re-iterable, lazy sequence of checked feeds."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ptq.data.feeds import Array, Feed, InputSpec, check_feed, hash_feed
from ptq.data.image_options import ImageOptions
from ptq.errors import ConfigError, DataError

#: Bytes of a serialized ONNX TensorProto -> its name and value; raises ValueError on other bytes.
TensorParser: TypeAlias = Callable[[bytes], tuple[str, Array]]


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What the caller of `open_dataset` asked for.

    Attributes:
        source: a path, ``package.module:function``, or ``random``.
        inputs: the model's inputs, in its order.
        samples: how many samples to use; ``None`` for all.
        seed: seeds ``random``.
        images: how to prepare images; ``None`` follows the model's input shape.
        tensor_parser: reads ``.pb`` files; comes from where ONNX may be imported.
    """

    source: str
    inputs: tuple[InputSpec, ...]
    samples: int | None = None
    seed: int = 0
    images: ImageOptions | None = None
    tensor_parser: TensorParser | None = None

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"cannot use {self.samples} samples; ask for 1 or more")


class Dataset(ABC):
    """Feeds from one source, read anew on every iteration, one in memory at a time.

    A subclass in its own file under `ptq.data.readers` is a new reader: it says which sources it
    ``accepts`` and yields raw feeds from ``_feeds``; checking, casting, notices and hashing are
    done here.

    Attributes:
        kind: the reader's name, for reports.
        form: what it reads, for the error that lists all the ways to supply data.
        synthetic: whether the values are made up.
        source: where the data comes from, as the user gave it.
        inputs: the model's inputs, in its order.
        notices: what was converted, ignored or left out, each line once; it grows during
            iteration, so print it after the pass.
        available: the number of samples in the source, or ``None`` if only reading tells.
        positions: which of the available samples are used, in order; ``None`` if the source can
            only be read from its start.
        rows: the number of labels that belong to one sample (a model of fixed batch takes several).
    """

    kind: ClassVar[str]
    form: ClassVar[str]
    synthetic: ClassVar[bool] = False

    def __init__(self, request: DataRequest) -> None:
        self.source = request.source
        self.inputs = request.inputs
        self.notices: list[str] = []
        self.available: int | None = None
        self.positions: Sequence[int] | None = None
        self.rows = 1

    @classmethod
    @abstractmethod
    def accepts(cls, source: str) -> bool:
        """Return whether this reader is the one for the source, from names of files alone."""

    @abstractmethod
    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        """Yield each feed, not yet checked, after the words that name it in an error."""

    def __iter__(self) -> Iterator[Feed]:
        empty = True
        for where, feed in self._feeds():
            empty = False
            yield check_feed(feed, self.inputs, where, self.notice)
        if empty:
            raise DataError(f"{self.source}: gives no samples; give at least one")

    def __bool__(self) -> bool:
        # there is at least one sample, or iteration raises; and counting may cost a pass
        return True

    def __len__(self) -> int:
        return len(self._chosen())

    def digest(self) -> str:
        """Return the sha256 of the feeds, in hexadecimal; reads the data once through.

        It covers the values the model gets, after checks and casts, and so depends neither on the
        container nor on samples that are not used. A caller that reads the data anyway gets the
        same digest from `ptq.data.hash_feed`.
        """
        hasher = hashlib.sha256()
        for feed in self:
            hash_feed(hasher, feed)
        return hasher.hexdigest()

    @property
    def expected(self) -> int | None:
        """The number of samples, for a progress bar; ``None`` if only reading tells."""
        return None if self.positions is None else len(self.positions)

    def notice(self, text: str) -> None:
        """Record a line for the user, under the name of the source, once."""
        line = f"{self.source}: {text}"
        if line not in self.notices:
            self.notices.append(line)

    def _choose(self, available: int, samples: int | None) -> None:
        """Choose the samples of an indexable source: all, or ``samples`` of them evenly spaced."""
        if available == 0:
            raise DataError(f"{self.source}: holds no samples; give at least one")
        if samples is not None and samples > available:
            self.notice(f"has {available} samples, fewer than the {samples} asked for")
        self.available = available
        self.positions = evenly_spaced(available, samples)

    def _choose_rows(self, total: int, rows: int, samples: int | None) -> None:
        """Choose samples of ``rows`` rows each; a rest too small for a sample is left out."""
        if 0 < total < rows:
            raise DataError(
                f"{self.source}: holds {total} rows, and the model fixes its batch at {rows}; "
                f"give at least {rows}"
            )
        if total % rows:
            self.notice(
                f"the last {total % rows} of {total} rows are left out, "
                f"as the model fixes its batch at {rows}"
            )
        self.rows = rows
        self._choose(total // rows, samples)

    def _chosen(self) -> Sequence[int]:
        assert self.positions is not None  # a reader that does not choose has its own __len__
        return self.positions


def evenly_spaced(available: int, samples: int | None) -> Sequence[int]:
    """Return ``samples`` of the indices below ``available``: ``i * available // samples``.

    The first index is always used, none twice; ``None`` or too large a number means all.
    """
    if samples is None or samples >= available:
        return range(available)
    return [i * available // samples for i in range(samples)]
