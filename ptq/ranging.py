"""Choose range methods by running the network on samples that were kept out of the statistics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from ptq.calib import Range, Solver, parse_method
from ptq.calib.auto import AutoSolver
from ptq.calib.lapq import LapqSolver
from ptq.calib.lp import LpSolver
from ptq.calib.pact import PactSolver
from ptq.data import Dataset, Feed
from ptq.data.dataset import evenly_spaced
from ptq.numerics.arrays import F64
from ptq.numerics.qtype import QType
from ptq.plan import Decision
from ptq.plan.make import RangeChoice, decide
from ptq.plan.request import Request
from ptq.report.ranges import RangeCandidate, RangeSearch
from ptq.search.coordinate import search_coordinates
from ptq.search.lapq import NORMS, method_of, search_lapq
from ptq.search.ranges import RangeResult, search_ranges
from ptq.stats.base import TensorStats

#: What is tried for all tensors. Of those that cannot be told apart the first is taken: the
#: default, then what clips less. `qcode` is for other hardware, `ema` depends on the order of the
#: samples, `scale` is a baseline.
CANDIDATES = (
    *("kl", "mse", "minmax", "percentile"),
    *("percentile:coverage=99.99", "percentile:coverage=99.9", "aciq"),
)

#: So many samples are chosen on, and of so many others the candidates are solved, at most.
_CHOSEN_ON, _SOLVED_FROM = 16, 64

#: Fewer samples are too few to be split.
_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Split:
    """Samples to choose on, and others to solve the candidates from; positions in the data.

    Attributes:
        chosen_on: spread evenly over the data.
        solved_from: likewise; empty if the samples are too few to be split.
    """

    chosen_on: tuple[int, ...]
    solved_from: tuple[int, ...]

    @classmethod
    def of(cls, count: int) -> Split:
        """Return the split of so many samples: one half to choose on, but no more than needed."""
        if count < _FEWEST:
            return cls(tuple(range(count)), ())
        kept = evenly_spaced(count, min(count // 2, _CHOSEN_ON))
        others = [i for i in range(count) if i not in kept]
        return cls(tuple(kept), tuple(others[i] for i in evenly_spaced(len(others), _SOLVED_FROM)))


class Part(Dataset):
    """The samples of a data set at some positions."""

    kind = "part"
    form = "part of a data set"

    def __init__(self, whole: Dataset, positions: Collection[int]) -> None:
        self.source, self.inputs, self.notices = whole.source, whole.inputs, whole.notices
        self.available, self.rows = whole.available, whole.rows
        self.positions = sorted(positions)
        self.whole = whole

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return that no source is one."""
        return False

    def __iter__(self) -> Iterator[Feed]:
        wanted = frozenset(self._chosen())
        # beyond the last one, nothing needs to be read
        feeds = islice(iter(self.whole), max(wanted) + 1)
        return (feed for i, feed in enumerate(feeds) if i in wanted)

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        return ((self.source, feed) for feed in self)


class Remembered(Solver, frozen=True):
    """A range method that solves each tensor once, however many plans are made with it."""

    solver: Solver
    known: dict[tuple[int, QType], Range] = msgspec.field(default_factory=dict)

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range; it is always as symmetric, and the statistics live longer."""
        key = id(stats), qtype
        if key not in self.known:
            self.known[key] = self.solver.solve(stats, qtype, symmetric=symmetric)
        return self.known[key]


class Turned(Solver, frozen=True):
    """The ranges of a method that is known already, times a factor."""

    solver: Solver
    by: LpSolver | PactSolver

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range."""
        return self.by.scaled(self.solver.solve(stats, qtype, symmetric=symmetric), stats)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a search over range methods plans and measures with.

    Attributes:
        asked: the tensors that need a scale.
        stats: what was observed, by tensor.
        choice_of: how a method's ranges become scales.
        others: tensors of which the user said the method.
        errors_of: output error of a plan by sample, of some samples or all, or ``None`` where it
            exceeds a limit.
        bits: of tensors that do not have those of the choice.
    """

    asked: Sequence[Request]
    stats: Mapping[str, TensorStats]
    choice_of: Callable[[Solver], RangeChoice]
    others: Mapping[str, RangeChoice]
    errors_of: Callable[[dict[str, Decision], float, Sequence[int] | None], F64 | None]
    bits: Mapping[str, int] = field(default_factory=dict)
    choices: dict[str, RangeChoice] = field(default_factory=dict)

    def measure(
        self,
        method: str,
        tensors: Mapping[str, str],
        limit: float,
        samples: Sequence[int] | None = None,
    ) -> F64 | None:
        """Return the output error of a method with others for some tensors."""
        return self.errors_of(self._decisions(method, tensors), limit, samples)

    def ranges(self, method: str) -> dict[str, Range]:
        """Return what a method makes of the tensors that can have another one's range."""
        free = {r.tensor for r in self.asked if r.observed and not r.joins and r.constant is None}
        return {
            name: Range(d.lo, d.hi)
            for name, d in self._decisions(method, {}).items()
            if name in free and d.observed == name and name not in self.others
        }

    def _decisions(self, method: str, tensors: Mapping[str, str]) -> dict[str, Decision]:
        others = {**{t: self._choice(m) for t, m in tensors.items()}, **self.others}
        choice = self._choice(method)
        return decide(self.asked, self.stats, choice, others=others, bits=self.bits)

    def _choice(self, method: str) -> RangeChoice:
        if method not in self.choices:
            self.choices[method] = self.choice_of(Remembered(solver=self._solver(method)))
        return self.choices[method]

    def _solver(self, method: str) -> Solver:
        solver = parse_method(method)
        if isinstance(solver, LpSolver) and solver.factor != 1.0:
            return Turned(solver=self._choice(method_of(solver.norm)).solver, by=solver)
        if isinstance(solver, PactSolver) and solver.factor != 1.0:
            return Turned(solver=self._choice(clipped_by(1.0)).solver, by=solver)
        return solver


def clipped_by(factor: float) -> str:
    """Return the range method of PACT, with alpha times a factor."""
    return "pact" if factor == 1.0 else f"pact:factor={factor:.4g}"


def search(
    solver: Solver, candidates: Candidates, samples: int, on_trial: Callable[[], None]
) -> RangeResult:
    """Return what the search finds that a range method stands for.

    Args:
        solver: one of those that run the network.
        candidates: what to plan and measure with.
        samples: how many samples are measured on.
        on_trial: called after each measurement.
    """
    if isinstance(solver, LapqSolver):
        return search_lapq(
            lambda method: list(candidates.ranges(method)),
            candidates.measure,
            samples=samples,
            trials=solver.trials,
            on_trial=on_trial,
        )
    if isinstance(solver, PactSolver):
        return search_coordinates(
            clipped_by,
            list(candidates.ranges(clipped_by(solver.factor))),
            candidates.measure,
            samples=samples,
            trials=solver.trials,
            on_trial=on_trial,
        )
    assert isinstance(solver, AutoSolver), f"no search is known for {solver}"
    return search_ranges(
        CANDIDATES,
        candidates.ranges,
        candidates.measure,
        samples=samples,
        trials=solver.trials,
        on_trial=on_trial,
    )


def measurements(solver: Solver) -> int:
    """Return about how many measurements its search takes, for a progress bar."""
    if isinstance(solver, PactSolver):
        return 1 + solver.trials
    tried = NORMS if isinstance(solver, LapqSolver) else CANDIDATES
    return len(tried) + int(getattr(solver, "trials", 0))


def searched(found: RangeResult, *, apart: bool) -> RangeSearch:
    """Return what the report says of a search.

    Args:
        found: its result.
        apart: whether these were kept out of the statistics.
    """
    return RangeSearch(
        chosen=found.method,
        candidates=tuple(
            RangeCandidate(method=m, sqnr_db=db, samples=found.samples[m])
            for m, db in found.sqnr_db.items()
        ),
        tensors=dict(sorted(found.tensors.items())),
        sqnr_db=found.best_db,
        trials=found.trials,
        samples=found.samples[found.method],
        held_out=apart,
    )
