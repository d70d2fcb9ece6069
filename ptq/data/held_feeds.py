"""A data set of feeds that are in memory: a few samples that are run again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ptq.data.dataset import DataRequest, Dataset
from ptq.data.feeds import Feed, InputSpec


class HeldFeeds(Dataset):
    """Feeds that another data set has given; no reader of files."""

    kind = "feeds"
    form = ""

    def __init__(self, feeds: Sequence[Feed], inputs: tuple[InputSpec, ...]) -> None:
        super().__init__(DataRequest("samples of the calibration data", inputs))
        self.feeds = feeds
        self._choose(len(feeds), None)

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return false: it reads no source."""
        return False

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        for index, feed in enumerate(self.feeds):
            yield f"{self.source}: sample {index}", feed
