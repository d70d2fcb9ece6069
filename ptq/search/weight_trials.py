"""What other weights in a float model do to its outputs: trial by trial, in one session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ptq.data.feeds import Feed
from ptq.numerics.arrays import F32
from ptq.runtime.session import open_session, run
from ptq.search.output_error import OutputScore

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
        self._score = OutputScore.of(
            [run(self._session, {**f, **weights}, where=_WHERE) for f in feeds]
        )

    def error(self, weights: Mapping[str, F32]) -> float:
        """Return the mean error of the samples with these weights instead, infinite if it fails.

        Errors of samples are those of `OutputScore`; their mean adds up over small changes.
        """
        given = {**self._weights, **weights}
        found = (run(self._session, {**feed, **given}, where=_WHERE) for feed in self._feeds)
        errors = self._score.errors(found)
        return float("inf") if errors is None else float(errors.mean())
