"""Which calibration samples a model is refined on, and which say whether that made it better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ptq.data.dataset import evenly_spaced
from ptq.data.feeds import Feed

#: Of fewer samples none are kept out to choose on; of more, a quarter, but no more than needed.
_FEWEST, _MOST_CHOSEN_ON = 8, 16

#: What has always been held.
_ALWAYS = 96

#: No more of samples than that is held at once, in bytes, but for the fewest that will do.
_MOST_BYTES = 256 << 20


def first_feeds(data: Iterable[Feed], count: int) -> list[Feed]:
    """Return the first samples, so many at most, and no more than memory should hold."""
    found: list[Feed] = []
    size = 0
    for feed in islice(iter(data), count):
        size += sum(array.nbytes for array in feed.values())
        if size > _MOST_BYTES and len(found) >= _ALWAYS:
            break
        found.append(feed)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class LookedAt:
    """Samples, of which some are kept out to choose on.

    Attributes:
        refined_on: what weights are rounded and biases corrected on.
        chosen_on: what each step is judged on, 16 at most; the same ones if there are few.
        labels: the class of each row of these, where that is what they are judged by.
    """

    refined_on: Sequence[Feed]
    chosen_on: Sequence[Feed]
    labels: np.ndarray | None = None

    @staticmethod
    def chosen(available: int) -> Sequence[int]:
        """Return the positions of the samples that are kept out; none of few."""
        if available < _FEWEST:
            return ()
        return evenly_spaced(available, min(available // 4, _MOST_CHOSEN_ON))

    @classmethod
    def of(cls, feeds: Sequence[Feed]) -> LookedAt:
        """Return samples, split: the kept ones are spread evenly."""
        kept = cls.chosen(len(feeds))
        if not kept:
            return cls(feeds, feeds)
        others = [feed for i, feed in enumerate(feeds) if i not in kept]
        return cls(others, [feeds[i] for i in kept])
