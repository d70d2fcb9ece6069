"""Compare latencies honestly: interleaved rounds in one process, beside a null control.

Machines are noisy. The float model is therefore timed against itself as well, and what that
control shows is the resolution of the measurement: a ratio within it is no difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptq.data.feeds import Feed
from ptq.runtime.session import Session

#: Rounds are cut into this many blocks, whose ratios show the spread.
_BLOCKS = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """Latencies of one model, in milliseconds."""

    median_ms: float
    p10_ms: float
    p90_ms: float


@dataclass(frozen=True, slots=True)
class Latency:
    """How fast the quantized model is.

    Attributes:
        reference: the float model.
        quantized: the quantized model.
        speedup: float time over quantized time, of medians; above 1 is faster.
        control: the same ratio of the float model against itself; 1 on a quiet machine.
        spread: by what factor that control strays from 1, over blocks of rounds; at least 1.
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
    def verdict(self) -> str:
        """``faster``, ``slower``, or ``no difference`` within the spread of the control."""
        if 1 / self.spread <= self.speedup <= self.spread:
            return "no difference"
        return "faster" if self.speedup > 1 else "slower"


def measure_latency(
    open_reference: Callable[[], Session],
    open_quantized: Callable[[], Session],
    feed: Feed,
    *,
    threads: int,
    seconds: float = 2.0,
) -> Latency:
    """Time both models on one feed, in turn, and the float model a second time as a control.

    Args:
        open_reference: opens the float model; called twice, because a control has its own session.
        open_quantized: opens the quantized model.
        feed: what to run.
        threads: what the sessions were opened with; recorded.
        seconds: about how long to measure, warm-up not counted.
    """
    sessions = [open_reference(), open_quantized(), open_reference()]
    for session in sessions:
        for _ in range(3):  # the first runs are slow: memory arenas grow, weights are packed
            session.run(None, feed)
    began = time.perf_counter()
    for session in sessions:
        session.run(None, feed)
    once = time.perf_counter() - began
    rounds = int(np.clip(seconds / max(once, 1e-6), 3 * _BLOCKS, 200))
    rounds -= rounds % _BLOCKS
    times = np.empty((rounds, len(sessions)))
    for i in range(rounds):
        # turn the order, so that no model always runs after the same other
        for j in np.roll(np.arange(len(sessions)), i):
            start = time.perf_counter()
            sessions[j].run(None, feed)
            times[i, j] = time.perf_counter() - start
    return _summarize(times * 1e3, threads)


def _summarize(times_ms: np.ndarray, threads: int) -> Latency:
    """Turn a table of times (rounds, 3): float, quantized, float again, into a result."""
    medians = np.median(times_ms, axis=0)
    blocks = np.median(times_ms.reshape(_BLOCKS, -1, 3), axis=1)
    strays = np.abs(np.log(blocks[:, 0] / blocks[:, 2]))
    return Latency(
        reference=_timing(times_ms[:, 0]),
        quantized=_timing(times_ms[:, 1]),
        speedup=float(medians[0] / medians[1]),
        control=float(medians[0] / medians[2]),
        spread=float(np.exp(strays.max())),
        rounds=len(times_ms),
        threads=threads,
    )


def _timing(times_ms: np.ndarray) -> Timing:
    p10, median, p90 = np.percentile(times_ms, (10, 50, 90))
    return Timing(float(median), float(p10), float(p90))
