"""Try models on a few feeds: how far their outputs are from the float model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from ptq.data import Feed
from ptq.errors import ConfigError
from ptq.graph.save import to_bytes
from ptq.metrics.class_scores import scores_index
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


#: What a wrong answer weighs against the cross entropy, which tells models of equal answers apart.
_LOGS = 1e-6


class LabelTrial:
    """A few feeds, and the right answers.

    Args:
        feeds: of one row or several.
        labels: the class of each row.
        source: the float model.
    """

    def __init__(self, feeds: Sequence[Feed], labels: np.ndarray, source: Source) -> None:
        self.feeds = feeds
        self.labels = labels
        self.folder = source.folder

    def error(self, model: bytes) -> float:
        """Return the share of wrong answers, in 0..1, and a little for how sure they are.

        Raises:
            ConfigError: no output has class scores for each row.
        """
        session = open_session(model, folder=self.folder)
        found = [run(session, feed, where="a held-out sample") for feed in self.feeds]
        index = scores_index(found[0], told=True)
        if index is None:
            raise ConfigError("there are labels, and the model puts out no class scores")
        scores = np.concatenate([outputs[index] for outputs in found]).astype(np.float64)
        wrong = float(np.mean(scores.argmax(axis=-1) != self.labels))
        logs = scores - logsumexp(scores, axis=-1, keepdims=True)
        entropy = -float(np.take_along_axis(logs, self.labels[:, np.newaxis], axis=-1).mean())
        return wrong + _LOGS * min(max(entropy, 0.0), 1.0 / _LOGS)
