"""Progress and wall time of the stages; the library reports, only the command line draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: its name, such as ``observe``.
        done: steps done.
        total: steps in all; ``None`` if unknown.
        text: what there is to say about the last step, such as a loss.
    """

    stage: str
    done: int
    total: int | None
    text: str = ""


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Take no notice: the default of every ``on_progress``."""


@dataclass(slots=True)
class Stages:
    """Times the stages of a run and tells how far they are.

    Attributes:
        on_progress: told of every step.
        seconds: wall time by stage, in the order in which stages began.
    """

    on_progress: OnProgress = ignore
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """Time a block; yields a function that counts one step."""
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            self.on_progress(Progress(name, done, total))

        self.on_progress(Progress(name, 0, total))
        began = time.perf_counter()
        try:
            yield step
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
