"""Try models on a few feeds: how far their outputs are from the float model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptq.data import Feed
from ptq.graph.save import to_bytes
from ptq.numerics.arrays import F64
from ptq.runtime.observe import in_order
from ptq.runtime.session import Optimization, Session, open_session, run
from ptq.search.output_error import OutputScore
from ptq.source import Source


class Trial:
    """A few feeds, and what the float model makes of them."""

    def __init__(self, feeds: list[Feed], source: Source) -> None:
        reference = open_session(to_bytes(source.model), folder=source.folder)
        self.feeds = feeds
        self.score = OutputScore.of(
            [run(reference, feed, where="a calibration sample") for feed in feeds]
        )
        self.folder = source.folder

    def error(self, model: bytes) -> float:
        """Return the error of a model's outputs (`OutputScore.error`)."""
        return self._error(open_session(model, folder=self.folder))

    def error_of_file(self, path: Path, *, simulated: bool) -> float:
        """Return the same of a model in a file, with its external data beside it.

        Args:
            path: the file.
            simulated: whether it is to be run as it is written, without fused kernels.
        """
        return self._error(open_session(path, optimization="disabled" if simulated else "all"))

    def _error(self, session: Session) -> float:
        found = (run(session, feed, where="a calibration sample") for feed in self.feeds)
        return self.score.error(found)

    def errors(
        self,
        model: bytes,
        limit: float,
        samples: Sequence[int] | None = None,
        *,
        simulated: bool,
        threads: int,
    ) -> F64 | None:
        """Return the error of a model's outputs by feed, or ``None`` if the sum exceeds a limit.

        Args:
            model: the bytes of a quantized model.
            limit: of the sum.
            samples: positions of the feeds to run; all if ``None``.
            simulated: whether not to fuse, as another machine's kernels would compute otherwise.
            threads: how many feeds run at once.
        """
        chosen = range(len(self.feeds)) if samples is None else samples
        level: Optimization = "disabled" if simulated else "all"
        session = open_session(model, folder=self.folder, optimization=level)

        def outputs(feed: Feed) -> list[np.ndarray]:
            return run(session, feed, where="a calibration sample")

        found = in_order(outputs, [self.feeds[i] for i in chosen], threads)
        return self.score.of_samples(chosen).errors(found, limit=limit)
