"""Compare latencies honestly: interleaved rounds in one process, beside a null control.

Machines are noisy. The first model is therefore timed against itself as well, and what that
control shows is the resolution of the measurement: a ratio within it is no difference.

Every round runs every model once, and gives a ratio of its own; the median of these is the
speed-up. Under changing load it strays 2 to 10 times less than the ratio of the medians, of the
10th percentiles or of the means of the faster half, because a slow minute slows both sides of a
round's ratio.

The rounds are cut into five blocks, and how far the ratio strays over any two of them is the
spread. A session keeps what it has drawn in memory addresses, which makes two sessions of one small
model differ by up to 4 % for as long as they live; so every block has sessions of its own, opened
in another order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np

from ptq.data.feeds import Feed
from ptq.runtime.session import Session

Opener: TypeAlias = Callable[[], Session]
Verdict: TypeAlias = Literal["faster", "slower", "no difference"]

#: Rounds are cut into this many blocks, whose ratios show the spread.
BLOCKS = 5

#: The first runs are slow: memory arenas grow, weights are packed.
_WARM_UP = 3

#: Sessions are opened anew if opening all of them takes less than this share of the measurement.
_OPENING = 0.1

#: How many rounds there are at least, however slow the models, and at most.
_LEAST_ROUNDS, _MOST_ROUNDS = 3 * BLOCKS, 2000 * BLOCKS


@dataclass(frozen=True, slots=True)
class Timing:
    """Latencies of one model, in milliseconds."""

    median_ms: float
    p10_ms: float
    p90_ms: float


@dataclass(frozen=True, slots=True)
class Speedup:
    """How fast a model is against the first one; above 1 is faster.

    Attributes:
        median: the first model's time over this one's, the median over the rounds.
        p10: the ratio of the 10th percentiles: nearer to what a quiet machine gives, but of less
            certain value.
        spread: by what factor the measurement strays over any two of five blocks: the control from
            1, or the ratio from its median, whichever is more; at least 1.
    """

    median: float
    p10: float
    spread: float

    @property
    def verdict(self) -> Verdict:
        """``faster``, ``slower``, or ``no difference`` within the spread."""
        if 1 / self.spread <= self.median <= self.spread:
            return "no difference"
        return "faster" if self.median > 1 else "slower"


@dataclass(frozen=True, slots=True)
class Latencies:
    """How fast several models are.

    Attributes:
        timings: of each model, in the order given.
        speedups: of each model against the first; 1 for the first.
        control: the first model against itself, in a session of its own; its ``spread`` is how far
            it strays from 1.
        rounds: how often each model was run.
        threads: threads within an operator.
    """

    timings: tuple[Timing, ...]
    speedups: tuple[Speedup, ...]
    control: Speedup
    rounds: int
    threads: int

    def versus(self, index: int) -> Latency:
        """Return how fast one model is against the first."""
        return Latency(
            reference=self.timings[0],
            quantized=self.timings[index],
            speedup=self.speedups[index].median,
            control=self.control.median,
            spread=self.speedups[index].spread,
            rounds=self.rounds,
            threads=self.threads,
        )


@dataclass(frozen=True, slots=True)
class Latency:
    """How fast the quantized model is.

    Attributes:
        reference: the float model.
        quantized: the quantized model.
        speedup: float time over quantized time, the median over the rounds; above 1 is faster.
        control: the same ratio of the float model against itself; 1 on a quiet machine.
        spread: by what factor the measurement strays over any two of five blocks: that control
            from 1, or the speed-up from its median, whichever is more; at least 1.
        rounds: how often each model was run.
        threads: threads within an operator.
    """

    reference: Timing
    quantized: Timing
    speedup: float
    control: float
    spread: float
    rounds: int
    threads: int

    @property
    def speedup_p10(self) -> float:
        """The ratio of the 10th percentiles: nearer to what a quiet machine gives."""
        return self.reference.p10_ms / self.quantized.p10_ms

    @property
    def verdict(self) -> Verdict:
        """``faster``, ``slower``, or ``no difference`` within the spread."""
        return Speedup(self.speedup, self.speedup_p10, self.spread).verdict


def measure_latency(
    open_reference: Opener,
    open_quantized: Opener,
    feed: Feed,
    *,
    threads: int,
    seconds: float = 2.0,
) -> Latency:
    """Time two models on one feed, in turn, and the first a second time as a control.

    Args:
        open_reference: opens the float model; called several times, also for the control.
        open_quantized: opens the quantized model.
        feed: what to run.
        threads: what the sessions were opened with; recorded.
        seconds: about how long to measure, warm-up not counted.
    """
    openers = (open_reference, open_quantized)
    return measure_latencies(openers, feed, threads=threads, seconds=seconds).versus(1)


def measure_latencies(
    openers: Sequence[Opener],
    feed: Feed,
    *,
    threads: int,
    seconds: float = 2.0,
    on_block: Callable[[], None] = lambda: None,
) -> Latencies:
    """Time models on one feed, in turn, and the first a second time as a control.

    Args:
        openers: each opens one model; called several times.
        feed: what to run.
        threads: what the sessions were opened with; recorded.
        seconds: about how long to measure, warm-up not counted; slow models take longer.
        on_block: called `BLOCKS` times while the measurement goes on.
    """
    openers = (*openers, openers[0])
    began = time.perf_counter()
    sessions = _open(openers, feed, 0)
    opening = time.perf_counter() - began
    once = sum(_seconds(session, feed) for session in sessions)
    rounds = int(np.clip(seconds / max(once, 1e-6), _LEAST_ROUNDS, _MOST_ROUNDS)) // BLOCKS
    times = np.empty((BLOCKS, rounds, len(openers)))
    for block in range(BLOCKS):
        if block and opening < seconds * _OPENING:
            sessions.clear()  # before the next ones are opened: memory may not hold both
            sessions = _open(openers, feed, block)
        for i in range(rounds):
            for j in _turned(len(sessions), block * rounds + i):
                times[block, i, j] = _seconds(sessions[j], feed)
        on_block()
    return _summarize(times.reshape(-1, len(openers)) * 1e3, threads)


def _open(openers: Sequence[Opener], feed: Feed, turn: int) -> list[Session]:
    """Open all sessions and warm them up."""
    opened = {i: openers[i]() for i in _turned(len(openers), turn)}
    sessions = [opened[i] for i in range(len(openers))]
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(None, feed)
    return sessions


def _turned(count: int, turn: int) -> list[int]:
    """Return the indices below a count, begun elsewhere at every turn.

    So no model always comes first, or after the same other.
    """
    return [(turn + i) % count for i in range(count)]


def _seconds(session: Session, feed: Feed) -> float:
    start = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - start


def _summarize(times_ms: np.ndarray, threads: int) -> Latencies:
    """Turn a table of times, a row a round: every model, and the first again, into a result."""
    # of logarithms, so that turning a ratio around turns what is made of it around
    ratios = np.log(times_ms[:, :1]) - np.log(times_ms)
    p10 = np.percentile(times_ms, 10, axis=0)
    models = range(times_ms.shape[1] - 1)
    resolution = _stray(ratios[:, -1], about=0.0)
    speedups = []
    for j in (*models, -1):
        median = float(np.median(ratios[:, j]))
        # load that hits two copies of one model alike may hit two models differently
        stray = max(resolution, _stray(ratios[:, j], about=median)) if j > 0 else resolution
        speedups.append(Speedup(float(np.exp(median)), float(p10[0] / p10[j]), stray))
    *speedups, control = speedups
    return Latencies(
        timings=tuple(_timing(times_ms[:, j]) for j in models),
        speedups=tuple(speedups),
        control=control,
        rounds=len(times_ms),
        threads=threads,
    )


def _stray(ratios: np.ndarray, *, about: float) -> float:
    """Return by what factor two blocks are farthest from a value, given logarithms of ratios.

    Single blocks would stray twice as far on a busy machine, whole measurements hardly at all.
    """
    blocks = ratios.reshape(BLOCKS, -1)
    medians = [np.median(blocks[[i, j]]) for i, j in combinations(range(BLOCKS), 2)]
    return float(np.exp(np.abs(np.asarray(medians) - about).max()))


def _timing(times_ms: np.ndarray) -> Timing:
    p10, median, p90 = np.percentile(times_ms, (10, 50, 90))
    return Timing(float(median), float(p10), float(p90))
