"""What other weights in a float model do to its outputs: trial by trial, in one session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ptq.data.feeds import Feed
from ptq.numerics.arrays import F32
from ptq.runtime.session import open_session, run
from ptq.search.qcode import relative_error

_WHERE = "a calibration sample"


class WeightTrials:
    """A float model of which weights are fed, and a few feeds to try others on."""

    def __init__(
        self,
        model: bytes,
        weights: Mapping[str, F32],
        feeds: Sequence[Feed],
        folder: Path,
        *,
        threads: int = 1,
    ) -> None:
        """Open the model and run it once with its own weights.

        Args:
            model: what `with_weights_fed` returns.
            weights: the float weights that are fed, by name.
            feeds: the data.
            folder: where external data lies.
            threads: within an operator.

        Raises:
            DataError: the model fails on a feed.
        """
        self._session = open_session(model, threads=threads, folder=folder)
        self._weights, self._feeds = weights, feeds
        self._wanted = [run(self._session, {**f, **weights}, where=_WHERE) for f in feeds]

    def error(self, weights: Mapping[str, F32]) -> float:
        """Return the squared error of the outputs, relative to them, with these weights instead."""
        given = {**self._weights, **weights}
        found = (run(self._session, {**feed, **given}, where=_WHERE) for feed in self._feeds)
        return relative_error(self._wanted, found)
