"""What quantizing some parts of a model, and not others, does to its outputs: trial by trial.

All trials run in one session of a model with switches, and are compared with what it puts out with
all of them off. Memory is that of the outputs of the few samples, whatever the number of trials.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import msgspec
import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import DataError, VerificationError
from ptq.evaluate.accuracy import comparable
from ptq.graph.switches import SwitchedModel
from ptq.metrics.class_scores import looks_like_scores, scores_index
from ptq.numerics.arrays import F64
from ptq.numerics.metrics import ErrorSums
from ptq.runtime.session import open_session, run

#: Probabilities below this count as this much: float32 has no smaller ones that are normal.
_LEAST = float(np.finfo(np.float32).tiny)


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """How far the outputs are from those of the float model.

    Attributes:
        noise: power of the difference over that of the signal, the mean over the floating-point
            outputs, so that each of them counts alike whatever its unit; 0 if nothing differs.
        kl: divergence of the classes from the float model's, in nats, the mean over the answers;
            ``None`` if the outputs are no class scores.
    """

    noise: float
    kl: float | None = None

    @property
    def sqnr_db(self) -> float:
        """The noise as decibels, infinite if there is none."""
        return -10 * math.log10(self.noise) if self.noise > 0 else math.inf


class Trials:
    """A model with switches, and a few feeds to try them on."""

    def __init__(self, switched: SwitchedModel, feeds: Sequence[Feed], *, threads: int = 1) -> None:
        """Open the model and run it once with all switches off.

        Args:
            switched: the model.
            feeds: what to try it on.
            threads: how many trials run at once, on one thread each.

        Raises:
            DataError: there is no feed, or the model fails on one.
            VerificationError: it has no floating-point output.
        """
        if not feeds:
            raise DataError("there is no sample to measure on; the data must hold at least one")
        # where weights are chosen at run time nothing can be fused with them: this is simulation
        self._session = open_session(
            switched.model, optimization="extended", folder=switched.folder
        )
        self._switched = switched
        self._feeds = feeds
        self._threads = threads
        self._float = [self._run(feed, ()) for feed in feeds]
        self._floating = [i for i, value in enumerate(self._float[0]) if value.dtype.kind == "f"]
        if not self._floating:
            raise VerificationError("the model has no floating-point output to compare")
        self._scores = scores_index(self._float[0], told=False)

    def first(self, count: int) -> Trials:
        """Return the same on the first feeds only, in the same session."""
        fewer = copy(self)
        fewer._feeds, fewer._float = self._feeds[:count], self._float[:count]
        return fewer

    def __call__(self, trials: Iterable[Collection[str]]) -> Iterator[Damage]:
        """Yield the damage of each trial, in order; a trial is the switches that are on."""
        if self._threads == 1:
            yield from map(self.damage, trials)
            return
        with ThreadPoolExecutor(self._threads, thread_name_prefix="ptq-trials") as pool:
            yield from pool.map(self.damage, trials)

    def damage(self, on: Collection[str]) -> Damage:
        """Return the damage of quantizing what these switches stand for.

        Raises:
            DataError: the float model gives NaN, or fails on a sample.
            VerificationError: the outputs are NaN or infinite where the float model's are not.
        """
        sums = {i: ErrorSums() for i in self._floating}
        divergence, answers = 0.0, 0
        for number, (feed, wanted) in enumerate(zip(self._feeds, self._float, strict=True)):
            found = self._run(feed, on)
            for i in self._floating:
                name = self._switched.outputs[i]
                pair = comparable(name, wanted[i], found[i], number)
                sums[i] += ErrorSums.of(*pair)
            if self._scores is not None:
                rows = divergences(wanted[self._scores], found[self._scores])
                divergence, answers = divergence + float(rows.sum()), answers + rows.size
        noise = [s.noise / (s.signal or 1.0) for s in sums.values()]
        return Damage(noise=float(np.mean(noise)), kl=divergence / answers if answers else None)

    def _run(self, feed: Feed, on: Collection[str]) -> list[np.ndarray]:
        given: Feed = {**feed, **self._switched.feed(on)}
        return run(self._session, given, self._switched.outputs, where="a sample")


def divergences(wanted: np.ndarray, found: np.ndarray) -> F64:
    """Return how far each row of classes diverges from the float model's (Kullback-Leibler, nats).

    Args:
        wanted: scores of the float model, classes last: logits ``(N, C)``, or probabilities.
        found: the other model's.
    """
    logs = [_log_probabilities(x.astype(np.float64), _sums_to_one(wanted)) for x in (wanted, found)]
    rows: F64 = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=-1).ravel()
    return np.maximum(rows, 0.0)  # below 0 by rounding only


def _sums_to_one(scores: np.ndarray) -> bool:
    # of rank 3, what looks like scores does so because it sums to one
    return looks_like_scores(scores[np.newaxis] if scores.ndim == 2 else scores)


def _log_probabilities(scores: F64, are_probabilities: bool) -> F64:
    if are_probabilities:
        scores = np.log(np.maximum(scores, _LEAST))
    # what softmax puts out is not changed by another
    shifted = scores - scores.max(axis=-1, keepdims=True)
    logs: F64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs
