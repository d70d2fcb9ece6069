"""Climb a ladder of settings: greedily, from cheap to dear, within a budget of seconds.

It knows nothing of models: what a trial is, and what it gives, is for others to say. The seconds
of a trial are those that it took when it was measured, so that a run which finds its trials in a
store takes the same decisions as the one that measured them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ptq.config import QuantizeConfig
from ptq.errors import ConfigError
from ptq.search.ladder import Rung

#: By what part of the budget the last rungs may overrun it.
_OVERRUN = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial gave.

    Attributes:
        seconds: what it cost.
        merit: how far the model is from the float one; less is better, infinite if it failed.
        missed: how many limits it misses.
        beyond_repair: whether it misses one, in size or speed, that other values of scales, weights
            and biases cannot mend.
        failed: why there is no model; empty if there is one.
        placing_s: how many of the seconds went into finding out what is faster in which kernel,
            which trials with the same kernels need not do again.
    """

    seconds: float
    merit: float = math.inf
    missed: int = 0
    beyond_repair: bool = False
    failed: str = ""
    placing_s: float = 0.0

    @property
    def satisfies(self) -> bool:
        """Whether there is a model, and every limit holds."""
        return not self.failed and self.missed == 0


@dataclass(frozen=True, slots=True)
class Step:
    """A rung that was tried, or left out.

    Attributes:
        rung: which.
        path: names of the rungs whose changes are in it, in their order.
        config: the settings; ``None`` if it was left out.
        started: number of the step whose settings were changed; ``None`` for none.
        outcome: what it gave; ``None`` if it was left out.
        left_out: why.
        guess: about how many seconds it was thought to take.
    """

    rung: Rung
    path: tuple[str, ...]
    config: QuantizeConfig | None = None
    started: int | None = None
    outcome: Outcome | None = None
    left_out: str = ""
    guess: float = 0.0


class Trying(Protocol):
    """What can try settings."""

    def outcome(self, number: int, step: Step) -> Outcome:
        """Return what the settings of a step give, measured or remembered.

        Args:
            number: of the step, from 0; ``step.started`` is that of an earlier one.
            step: what to try.
        """
        ...

    def worst_layers(
        self, config: QuantizeConfig, count: int, seconds: float
    ) -> tuple[str, ...] | None:
        """Return the layers that do the most damage, at most so many, the worst first.

        ``None`` if that cannot be told in so many seconds; what it took is part of the next trial.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """How to climb.

    Attributes:
        ladder: what to try, in this order.
        budget: seconds that the trials may cost.
        operators: operator types of the model.
        to_the_top: whether to go on once every limit holds.
    """

    ladder: Sequence[Rung]
    budget: float
    operators: frozenset[str]
    to_the_top: bool = False

    def run(self, base: QuantizeConfig, trying: Trying) -> tuple[Step, ...]:
        """Try rung after rung, until one satisfies or the budget is spent.

        Args:
            base: the settings of the user.
            trying: what measures.
        """
        steps: list[Step] = []
        for place, rung in enumerate(self.ladder):
            step = self._step(place, rung, base, steps, trying)
            if step is None:
                continue
            if step.config is not None:
                step = replace(step, outcome=trying.outcome(len(steps), step))
            steps.append(step)
            if step.outcome is not None and step.outcome.satisfies and not self.to_the_top:
                break
        return tuple(steps)

    def _step(
        self, place: int, rung: Rung, base: QuantizeConfig, steps: Sequence[Step], trying: Trying
    ) -> Step | None:
        """Return what to try, or why not; ``None`` if there is nothing to say of it."""
        if rung.needs and not rung.needs & self.operators:
            return None
        number = None if rung.alone else best_static(steps)
        if number is None and not rung.alone:
            return Step(rung, (rung.name,), left_out="there is no static model to start from")
        started = None if number is None else steps[number]
        path = (rung.name,) if started is None else _joined(started.path, rung)
        if started is not None and not rung.kernels and _beyond_repair(started):
            return Step(rung, path, left_out="size and speed stay as they are, and are missed")
        left, guess = self._left(place, rung, steps), _guess(rung, started, steps)
        if guess > left:
            why = f"takes about {guess:.0f} s, and {max(left, 0.0):.0f} s are left for it"
            return Step(rung, path, left_out=why)
        config = base if started is None else started.config
        assert config is not None
        worst: tuple[str, ...] = ()
        if rung.float_layers:
            ranked = trying.worst_layers(config, rung.float_layers, left - guess)
            if ranked is None:
                return Step(rung, path, left_out="to measure every layer takes too long")
            worst = ranked
            if len(worst) < rung.float_layers:
                return Step(rung, path, left_out="no more layers do damage")
        try:
            changed = rung.settings(config, worst)
        except ConfigError as error:  # what the user gave does not go with it
            return Step(rung, path, left_out=str(error))
        return None if changed is None else Step(rung, path, changed, number, guess=guess)

    def _left(self, place: int, rung: Rung, steps: Sequence[Step]) -> float:
        """Return the seconds that a rung may cost: the last ones keep what they need.

        The first and the float model itself are tried whatever they cost: without them, there might
        be no answer.
        """
        done = _seconds(steps)
        if not done or not rung.quantizes:
            return math.inf
        left = self.budget - sum(done)
        if rung.last:  # a little more, for there might be no answer without
            return left + _OVERRUN * self.budget
        return left - sum(_guess(r, None, steps) for r in self.ladder[place + 1 :] if r.last)


def best_static(steps: Sequence[Step]) -> int | None:
    """Return the number of the static step of the least error; of equal ones the earlier."""
    known = [
        (s.outcome.merit, i)
        for i, s in enumerate(steps)
        if s.outcome is not None and not s.outcome.failed
        if s.rung.scheme == "static" and s.rung.quantizes
    ]
    return min(known)[1] if known else None


def nearest(steps: Sequence[Step]) -> int | None:
    """Return the number of the step that misses the fewest limits, and has the least error."""
    known = [
        (s.outcome.missed, s.outcome.merit, i)
        for i, s in enumerate(steps)
        if s.outcome is not None and not s.outcome.failed
    ]
    return min(known)[2] if known else None


def _beyond_repair(step: Step) -> bool:
    return step.outcome is not None and step.outcome.beyond_repair


def _seconds(steps: Sequence[Step]) -> list[float]:
    return [s.outcome.seconds for s in steps if s.outcome is not None]


def _guess(rung: Rung, started: Step | None, steps: Sequence[Step]) -> float:
    """Return about how many seconds a rung takes: what it starts from, and what it adds to that.

    If the trials until now took longer than was thought, as on a machine that has become busy, so
    will this one.
    """
    done = _seconds(steps)
    if not done:
        return 0.0
    guess = done[0] * rung.cost
    if started is not None and started.outcome is not None:
        guess += started.outcome.seconds - (0.0 if rung.kernels else started.outcome.placing_s)
    thought = [s for s in steps if s.outcome is not None and s.guess and not s.outcome.failed]
    if thought:
        took = sum(s.outcome.seconds for s in thought if s.outcome is not None)
        guess *= max(1.0, took / sum(s.guess for s in thought))
    return guess


def _joined(path: tuple[str, ...], rung: Rung) -> tuple[str, ...]:
    """Return the names of what is in a step: a number of float layers replaces a smaller one."""
    if rung.float_layers and path and path[-1].endswith("in float"):
        path = path[:-1]
    return (*path, rung.name)
