"""Calibration: observe once, solve many. Statistics are kept with what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ptq import __version__
from ptq.data import Dataset, Feed
from ptq.errors import CalibrationError
from ptq.graph.taps import tap
from ptq.runtime.observe import observe
from ptq.source import Source
from ptq.stats.base import TensorStats
from ptq.stats.store import load_stats, save_stats

#: Raised whenever the meaning of a header field or of a statistic changes.
SCHEMA = 1

#: With ``sample_size=0``, about this many values of each large tensor are counted over all samples:
#: its 99.99 % quantile then rests on fifty values.
_VALUES_WANTED = 1 << 19
_SAMPLE_SIZES = (1 << 11, 1 << 14)
_FEEDS_GUESSED = 128


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What statistics were made from; a file that does not match is stale.

    Attributes:
        ptq: the version that made them: preparation may change between versions.
        model_sha256: digest of the model file.
        data_sha256: digest of the feeds.
        data_source: what the user called the data.
        synthetic: whether the data was random numbers.
        samples: how many feeds were observed.
        sample_size: values of a large tensor counted for each feed.
        ema_decay: decay of the moving averages.
        schema: version of this format.
    """

    ptq: str
    model_sha256: str
    data_sha256: str
    data_source: str
    synthetic: bool
    samples: int
    sample_size: int
    ema_decay: float
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Calibration:
    """Statistics of tensors, and what they were made from."""

    header: Header
    stats: dict[str, TensorStats]

    def save(self, path: Path) -> None:
        """Write a file that `load` reads; the same statistics give the same bytes."""
        save_stats(path, msgspec.to_builtins(self.header), self.stats)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read statistics.

        Raises:
            CalibrationError: the file is damaged, or another version's.
        """
        fields, stats = load_stats(path)
        try:
            header = msgspec.convert(fields, Header)
        except msgspec.ValidationError as error:
            raise CalibrationError(f"'{path}' is not a statistics file of ptq: {error}") from error
        if header.schema != SCHEMA or header.ptq != __version__:
            raise CalibrationError(
                f"'{path}' was made by ptq {header.ptq}, this is {__version__}; "
                "run `ptq calibrate` again"
            )
        return cls(header, stats)

    def require_fresh(self, source: Source, path: Path, data: Dataset | None) -> None:
        """Refuse statistics of another model, or of other data than the user gives.

        Raises:
            CalibrationError: they are stale.
        """
        if self.header.model_sha256 != source.digest:
            raise CalibrationError(
                f"'{path}' holds statistics of another model than '{source.path}'; "
                "run `ptq calibrate` again"
            )
        if data is not None and data.digest() != self.header.data_sha256:
            raise CalibrationError(
                f"'{path}' holds statistics of other data than '{data.source}'; "
                "run `ptq calibrate` again, or leave out --calib-data"
            )

    def __add__(self, other: Calibration) -> Calibration:
        """Return the statistics of both data sets, in this order.

        Raises:
            CalibrationError: they are of different models or settings.
        """
        a, b = self.header, other.header
        same = ("model_sha256", "sample_size", "ema_decay", "ptq", "schema")
        for name in same:
            if getattr(a, name) != getattr(b, name):
                values = f"{getattr(a, name)} and {getattr(b, name)}"
                raise CalibrationError(
                    f"statistics differ in {name} ({values}) and cannot be merged; observe every "
                    "part with the same --sample-size and --ema-decay"
                )
        if self.stats.keys() != other.stats.keys():
            raise CalibrationError("statistics are of different tensors; they cannot be merged")
        header = msgspec.structs.replace(
            a,
            data_sha256=_joined(a.data_sha256, b.data_sha256),
            data_source=f"{a.data_source} + {b.data_source}",
            synthetic=a.synthetic or b.synthetic,
            samples=a.samples + b.samples,
        )
        return Calibration(header, {n: s + other.stats[n] for n, s in self.stats.items()})


def _joined(first: str, second: str) -> str:
    import hashlib

    return hashlib.sha256(f"{first}+{second}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ObserverSettings:
    """How to observe.

    Attributes:
        sample_size: values of a large tensor counted for each feed; 0 chooses by their number.
        ema_decay: decay of the moving averages.
        threads: how many feeds to run at once.
    """

    sample_size: int
    ema_decay: float
    threads: int

    def for_feeds(self, count: int | None) -> int:
        """Return the sample size for that many feeds; ``None`` if nobody knows how many."""
        if self.sample_size:
            return self.sample_size
        least, most = _SAMPLE_SIZES
        feeds = _FEEDS_GUESSED if count is None else max(count, 1)
        return min(max(_VALUES_WANTED // feeds, least), most)


def observe_tensors(
    source: Source,
    tensors: Sequence[str],
    data: Dataset,
    settings: ObserverSettings,
    *,
    on_feed: Callable[[], None] = lambda: None,
) -> Calibration:
    """Run the model over the data once and return the statistics of those tensors.

    Raises:
        CalibrationError: there is no sample, or a tensor is not finite.
        DataError: a sample does not fit the model.
    """
    return observe_apart(source, tensors, data, settings, (), on_feed=on_feed)[0]


def observe_apart(
    source: Source,
    tensors: Sequence[str],
    data: Dataset,
    settings: ObserverSettings,
    keep_out: Collection[int],
    *,
    on_feed: Callable[[], None] = lambda: None,
) -> tuple[Calibration, dict[str, TensorStats]]:
    """Return the statistics of those tensors, and those without some samples, from one pass.

    Args:
        source: the model.
        tensors: what to observe.
        data: all samples.
        settings: how to observe.
        keep_out: positions of the samples to be without.
        on_feed: called after each sample.

    Raises:
        CalibrationError: there is no sample, or a tensor is not finite.
        DataError: a sample does not fit the model.
    """
    sample_size = settings.for_feeds(data.expected)
    tapped = tap(source.model, tensors, feed=_first(data), sample_size=sample_size)
    found = observe(
        tapped,
        data,
        ema_decay=settings.ema_decay,
        threads=settings.threads,
        folder=source.folder,
        keep_out=keep_out,
        on_feed=on_feed,
    )
    header = Header(
        ptq=__version__,
        model_sha256=source.digest,
        data_sha256=found.data_digest,
        data_source=data.source,
        synthetic=data.synthetic,
        samples=found.feeds,
        sample_size=sample_size,
        ema_decay=settings.ema_decay,
    )
    return Calibration(header, found.stats), found.without


def _first(data: Dataset) -> Feed:
    for feed in data:
        return feed
    raise CalibrationError(f"'{data.source}' holds no sample; --calib-data must hold at least one")
