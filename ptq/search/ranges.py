"""Choose a range method by the output error, then other methods for single tensors.

No method is best on every network: of each tensor, clipping trades the error of few large values
for that of many small ones, and which of them the output feels is not in the tensor's statistics.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ptq.calib import Range
from ptq.errors import CalibrationError
from ptq.numerics.arrays import F64
from ptq.search.output_error import decibels, mean_db

#: What must speak for a change of some tensors: the mean gain of the samples in standard errors,
#: and in dB. Forty chances at two standard errors let one through by luck.
_STANDARD_ERRORS = 2.0
_LEAST_GAIN_DB = 0.05

#: So many samples are run first, and what is worse on them than the best by this, in dB and in
#: standard errors of the difference, is not run on the others.
_FIRST = 4
_WORSE_DB, _WORSE_ERRORS = 1.0, 2.0

#: Methods that differ by this much in dB are not taken for equals, however samples differ.
_APART_DB = 1.0

#: Fewer samples do not tell a gain from noise; then only the method is chosen.
LEAST_SAMPLES = 4

#: So many changes in a row without a gain end the search.
_PATIENCE = 12

#: A change that multiplies the sum of the errors by this is measured no further.
_HOPELESS = 4.0

#: Ranges whose ends differ by less than this share of their width are one.
_ALIKE = 0.03

#: Output error of a method with others for some tensors by sample (`OutputScore`), of some
#: samples or all, or ``None`` if the sum exceeds the limit.
Measure = Callable[[str, Mapping[str, str], float, Sequence[int] | None], F64 | None]


@dataclass(frozen=True, slots=True)
class RangeResult:
    """What the search found.

    Attributes:
        method: the first of the methods for all tensors that are best but for noise.
        tensors: methods of those tensors that have another.
        sqnr_db: mean SQNR of the samples, by method; ``None`` where it cannot be measured.
        samples: how many samples that is of, by method.
        best_db: that of the result; never smaller.
        trials: how many changes of single tensors were measured.
    """

    method: str
    tensors: dict[str, str]
    sqnr_db: dict[str, float | None]
    samples: dict[str, int]
    best_db: float
    trials: int


def search_ranges(
    methods: Sequence[str],
    ranges: Callable[[str], Mapping[str, Range]],
    measure: Measure,
    *,
    samples: int,
    trials: int,
    on_trial: Callable[[], None] = lambda: None,
) -> RangeResult:
    """Return the method of least output error, and the methods of tensors where another is better.

    What counts is the mean over the samples of their SQNR in dB: of squared errors, one or two
    samples often make up most of the sum, and would choose alone.

    Costs one measurement for each method, of a few samples where these show that it is not the
    best, and at most ``trials`` more.

    Args:
        methods: the candidates; of those that cannot be told apart the first is taken.
        ranges: what a method makes of each tensor that can be given another's range.
        measure: the output error, by sample.
        samples: how many samples there are.
        trials: how many changes of single tensors to try at most.
        on_trial: called after each measurement.

    Raises:
        CalibrationError: the error of no method can be measured.
    """
    found = _race(methods, measure, samples, on_trial)
    if not found:
        raise CalibrationError(
            "the outputs of no range method can be compared with the float model's: they are not "
            "finite or vary in shape; name a method, as --calib mse"
        )
    # sorting keeps the order of equals
    ranked = sorted(found, key=lambda m: (found[m].size < samples, -mean_db(found[m])))
    best = _first_of_the_best(ranked[0], found)
    climb = _Climb(best, found[best], measure)
    if found[best].size == samples >= LEAST_SAMPLES and trials:
        climb.run(_groups(best, {m: ranges(m) for m in ranked}), trials, on_trial)
    return RangeResult(
        method=best,
        tensors=climb.tensors,
        sqnr_db={m: mean_db(found[m]) if m in found else None for m in methods},
        samples={m: found[m].size if m in found else samples for m in methods},
        best_db=mean_db(climb.errors),
        trials=climb.tried,
    )


def _first_of_the_best(best: str, found: Mapping[str, F64]) -> str:
    """Return the first method than which the best is not better by more than noise, or 1 dB."""
    if found[best].size < LEAST_SAMPLES:
        return best
    measured = decibels(found[best])

    def alike(errors: F64) -> bool:
        gains = measured - decibels(errors)
        return float(gains.mean()) < _APART_DB and not certain(gains)

    return next(m for m, e in found.items() if e.size == measured.size and alike(e))


def certain(gains: F64) -> bool:
    """Return whether gains of samples in dB are more than noise, and worth a change."""
    noise = float(gains.std(ddof=1)) / math.sqrt(gains.size)
    return float(gains.mean()) > max(_LEAST_GAIN_DB, _STANDARD_ERRORS * noise)


def _race(
    methods: Sequence[str], measure: Measure, samples: int, on_trial: Callable[[], None]
) -> dict[str, F64]:
    """Return the errors of methods: of all samples where the first few do not rule them out."""
    first = [i * samples // _FIRST for i in range(_FIRST)] if samples > _FIRST else None
    found: dict[str, F64] = {}
    for method in methods:
        errors = measure(method, {}, math.inf, first)
        if errors is not None:
            found[method] = errors
        on_trial()
    if first is None or not found:
        return found
    best = decibels(max(found.values(), key=mean_db))
    others = [i for i in range(samples) if i not in first]
    order = np.argsort([*first, *others])
    for method, errors in list(found.items()):
        loss = best - decibels(errors)
        noise = float(loss.std(ddof=1)) / math.sqrt(loss.size)
        if float(loss.mean()) > max(_WORSE_DB, _WORSE_ERRORS * noise):
            continue
        more = measure(method, {}, math.inf, others)
        if more is None:
            del found[method]
        else:
            found[method] = np.concatenate([errors, more])[order]
    return found


@dataclass(slots=True)
class _Climb:
    """A greedy search: what gains stays."""

    method: str
    errors: F64
    measure: Measure
    tensors: dict[str, str] = field(default_factory=dict)
    tried: int = 0

    def run(self, groups: Sequence[_Group], trials: int, on_trial: Callable[[], None]) -> None:
        """Try whole groups first, then halves of those that gained most or lost least."""
        # the number keeps the order of equals, and of what comes first
        waiting = [(-math.inf, i, group) for i, group in enumerate(groups)]
        made, vain = len(waiting), 0
        while waiting and self.tried < trials and vain < _PATIENCE:
            _, _, group = heapq.heappop(waiting)
            gain, kept = self._try(group)
            self.tried += 1
            on_trial()
            vain = 0 if kept else vain + 1
            for half in () if kept else group.halves():
                made += 1
                heapq.heappush(waiting, (-gain, made, half))

    def _try(self, group: _Group) -> tuple[float, bool]:
        """Return the gain of a group in dB, and whether it stays."""
        tensors = {**self.tensors, **dict.fromkeys(group.tensors, group.method)}
        errors = self.measure(self.method, tensors, _HOPELESS * float(self.errors.sum()), None)
        if errors is None:
            return -math.inf, False
        gains = decibels(errors) - decibels(self.errors)
        kept = certain(gains)
        if kept:
            self.errors, self.tensors = errors, tensors
        return float(gains.mean()), kept


@dataclass(frozen=True, slots=True)
class _Group:
    """Tensors that get another method together: of one, a gain is seldom more than noise.

    Attributes:
        method: the other method.
        tensors: those that it changes most first.
    """

    method: str
    tensors: tuple[str, ...]

    def halves(self) -> tuple[_Group, ...]:
        """Return the half that is changed more, and the other."""
        middle = len(self.tensors) // 2
        if not middle:
            return ()
        parts = self.tensors[:middle], self.tensors[middle:]
        return tuple(_Group(self.method, part) for part in parts)


def _groups(best: str, ranges: Mapping[str, Mapping[str, Range]]) -> list[_Group]:
    """Return, for every other method, the tensors that it gives a narrower and a wider range.

    Args:
        best: the method of all tensors.
        ranges: by method, the better ones first, and by tensor.
    """
    groups: list[_Group] = []
    for method, of in ranges.items():
        changed = {
            tensor: _widening(chosen, of[tensor])
            for tensor, chosen in ranges[best].items()
            # what is a copy by one method can need a range of its own by another
            if tensor in of and _distance(chosen, of[tensor]) > _ALIKE
        }
        for narrower in (True, False):
            side = [t for t, widening in changed.items() if (widening < 0) == narrower]
            # sorting keeps the order of equals
            side.sort(key=lambda t: -abs(changed[t]))
            if side:
                groups.append(_Group(method, tuple(side)))
    return groups


def _distance(one: Range, other: Range) -> float:
    """By how much the ends differ, as a share of the wider range."""
    width = max(one.hi - one.lo, other.hi - other.lo)
    return max(abs(one.lo - other.lo), abs(one.hi - other.hi)) / width if width else 0.0


def _widening(one: Range, other: Range) -> float:
    """By how many bits the step of the other range is larger."""
    tiny = float(np.finfo(np.float32).tiny)
    return math.log2(max(other.hi - other.lo, tiny) / max(one.hi - one.lo, tiny))
