"""The speed guard: what to do with an integer model that is not worth its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptq.errors import ThresholdError
from ptq.evaluate.latency import Latency
from ptq.options import OnSlower, RunOptions
from ptq.place.costs import Costs

#: How many of the layers at fault are named.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class SpeedGuard:
    """What the user wants done about speed.

    Attributes:
        min_speedup: the least ratio of float time to integer time, if there is one.
        on_slower: what to do with a slower result.
    """

    min_speedup: float | None
    on_slower: OnSlower

    @classmethod
    def of(cls, options: RunOptions, *, measured: bool) -> SpeedGuard:
        """Return the guard of a run.

        Args:
            options: what the user said.
            measured: whether costs decide the placement: float is then one of its choices. Else
                what the user asked for is what is written.
        """
        default: OnSlower = "keep-float" if measured else "write"
        return cls(options.min_speedup, options.on_slower or default)

    @property
    def gives_way(self) -> bool:
        """Whether the float model takes the place of an integer one that is slower."""
        return self.on_slower == "keep-float" and self.min_speedup is None

    def doubts(self, latency: Latency) -> bool:
        """Whether the result is slower than float, or than the user puts up with."""
        return latency.verdict == "slower" or self._misses(latency)

    def keeps_float(self, latency: Latency, faults: Sequence[str]) -> bool:
        """Return whether the float model is to be kept in place of the integer one.

        Args:
            latency: of the integer model beside the float one.
            faults: the layers that cost most.

        Raises:
            ThresholdError: the result is slower than the user puts up with.
        """
        blame = f"; layers at fault: {', '.join(faults)}" if faults else ""
        if self._misses(latency):
            raise ThresholdError(
                f"the integer model is {latency.speedup:.2f}x as fast as the float one (spread "
                f"{latency.spread:.2f}x), and --min-speedup asks for {self.min_speedup:g}x{blame}"
            )
        if latency.verdict != "slower":
            return False
        if self.on_slower == "fail":
            raise ThresholdError(
                f"the integer model is {1 / latency.speedup:.2f}x slower than the float one"
                f"{blame}; --on-slower keep-float writes the float model"
            )
        return self.gives_way

    def _misses(self, latency: Latency) -> bool:
        return self.min_speedup is not None and latency.speedup < self.min_speedup


def layers_at_fault(costs: Costs) -> tuple[str, ...]:
    """Return the layers whose integer kernels cost most beyond their float ones, worst first."""
    worst = sorted(costs.blocks, key=lambda b: b.float_ms - b.integer_ms)
    return tuple(
        f"{b.name} ({b.integer_ms:.2g} ms against {b.float_ms:.2g} ms)"
        for b in worst[:_NAMED]
        if b.integer_ms > b.float_ms
    )
