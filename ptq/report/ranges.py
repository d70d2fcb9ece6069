"""How `--calib auto`, `lapq` or `pact` chose the ranges, and what papers have none for."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ptq.calib import parse_method
from ptq.plan import Plan
from ptq.report.decibels import decibels
from ptq.stats.base import TensorStats


class RangeCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A range method for all tensors.

    Attributes:
        method: as `--calib` takes it.
        sqnr_db: of the outputs, mean over the samples of the search, none of which counts for more
            than 60 dB; ``None`` where outputs cannot be compared.
        samples: how many it was measured on: few where these left no doubt.
    """

    method: str
    sqnr_db: float | None
    samples: int


class RangeSearch(msgspec.Struct, frozen=True, kw_only=True):
    """What a search by the output error chose, and from what.

    Attributes:
        chosen: the method of all tensors but some.
        candidates: the methods that were tried for all.
        tensors: the method of each tensor that has another.
        sqnr_db: of the outputs with these, as of a candidate.
        trials: how many changes of single tensors were tried.
        samples: how many samples the search measured on.
        held_out: whether they were kept out of the statistics.
    """

    chosen: str
    candidates: tuple[RangeCandidate, ...]
    tensors: dict[str, str]
    sqnr_db: float
    trials: int
    samples: int
    held_out: bool


def two_sided_line(calib: str, plan: Plan, stats: Mapping[str, TensorStats]) -> tuple[str, ...]:
    """Return what a method for tensors of one sign did with others, as one line, or none.

    Args:
        calib: the method, as `--calib` takes it.
        plan: what is quantized; tensors that share a scale count once.
        stats: what was observed, by tensor.
    """
    done = parse_method(calib).two_sided
    own = [t for t, d in plan.tensors.items() if d.observed == t and t in stats]
    both = [t for t in own if stats[t].minmax.lo < 0 < stats[t].minmax.hi]
    if not done or not both:
        return ()
    name = calib.partition(":")[0]
    return (
        f"--calib {name} is for tensors of one sign: {len(both)} of {len(own)} have both, and were "
        f"{done}",
    )


def range_line(search: RangeSearch, calib: str = "auto") -> str:
    """Return what was chosen, as one line.

    Args:
        search: the choice.
        calib: the method that stands for the search.
    """
    kind = "held-out" if search.held_out else "calibration"
    got = {c.method: decibels(c.sqnr_db, equal="-") for c in search.candidates}
    got |= {
        c.method: f"{got[c.method]} on {c.samples}"
        for c in search.candidates
        if c.samples < search.samples
    }
    others = "; ".join(f"{name} {db}" for name, db in got.items() if name != search.chosen)
    line = (
        f"--calib {calib} chose {search.chosen}: {got[search.chosen]} on {search.samples} {kind} "
        f"samples{f' ({others})' if others else ''}"
    )
    if search.tensors:
        count = f"{len(search.tensors)} tensor{'s' if len(search.tensors) > 1 else ''}"
        line += (
            f"; with other ranges for {count}, {decibels(search.sqnr_db)} after "
            f"{search.trials} trials"
        )
    return line
