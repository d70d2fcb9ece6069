"""Try every scheme on one model, and choose by measured accuracy and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ptq.config import Preference, Scheme
from ptq.errors import ConfigError, PtqError
from ptq.graph.publish import Draft
from ptq.placing import FLOATS
from ptq.report import Report
from ptq.run import Job, Run

#: What is tried, in this order.
SCHEMES: tuple[Scheme, ...] = ("static", "dynamic", "weight-only")

#: An SQNR that is good enough whatever else there is, and how much below the best one is not worse.
_GOOD_DB, _ALIKE_DB = 30.0, 3.0

#: Files that differ by no more are as small: 1 % is worth less than 10 dB.
_ALIKE_SIZE = 1.02


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one scheme: drafts and a report on them."""

    run: Run
    drafts: list[Draft]
    report: Report


def try_schemes(job: Job, outputs: Sequence[Path], stack: ExitStack) -> Tried:
    """Write every scheme to drafts of its own and return the best.

    Args:
        job: what every scheme works from; there must be data to measure on.
        outputs: where the files of the best are to go.
        stack: closes the drafts of all.

    Raises:
        ConfigError: there is no data.
        PtqError: every scheme failed; the error is that of the first.
    """
    if job.inputs.evidence() is None:
        raise ConfigError("--scheme auto measures accuracy; give --calib-data or --eval-data")
    if job.options.placement is not None:
        raise ConfigError("a placement is of one scheme; give that in place of --scheme auto")
    tried: dict[str, Tried] = {}
    failed: dict[str, PtqError] = {}
    for scheme in SCHEMES:
        drafts = [stack.enter_context(Draft(place)) for place in outputs]
        settings = job.config.with_scheme(scheme)
        try:
            run = Run(replace(job, config=settings))
            tried[scheme] = Tried(run, drafts, run.write(drafts))
        except PtqError as error:
            failed[scheme] = error
    if not tried:
        raise next(iter(failed.values()))
    reports = {name: t.report for name, t in tried.items()}
    chosen = choose_scheme(reports, prefer=job.config.prefer)
    found = tried[chosen]
    said = [f"{n}: {_figures(t.report)}" for n, t in tried.items()]
    said += [f"{n}: {error}" for n, error in failed.items()]
    notice = f"--scheme auto chose {chosen} ({'; '.join(said)})"
    report = msgspec.structs.replace(found.report, notices=(notice, *found.report.notices))
    return Tried(found.run, found.drafts, report)


def choose_scheme(reports: Mapping[str, Report], *, prefer: Preference = "speed") -> str:
    """Return the fastest accurate scheme, and of equally fast ones the smallest.

    Accurate is what has an SQNR of 30 dB, or is within 3 dB of the best. A scheme of which only
    the float model was worth writing is taken if all are such. Where size is preferred: the
    smallest, and of those within 2 % of it the most accurate.
    """
    integer = {n: r for n, r in reports.items() if not _is_float(r)} or dict(reports)
    if prefer == "size":
        largest = _ALIKE_SIZE * min(map(_size, integer.values()))
        small = {n: r for n, r in integer.items() if _size(r) <= largest}
        return max(small, key=lambda n: _sqnr_db(small[n]))
    best_db = max(_sqnr_db(r) for r in integer.values())
    floor = min(_GOOD_DB, best_db - _ALIKE_DB)
    accurate = {n: r for n, r in integer.items() if _sqnr_db(r) >= floor}
    fastest = max(accurate.values(), key=_speedup)
    spread = fastest.latency.spread if fastest.latency is not None else 1.0
    alike = {n: r for n, r in accurate.items() if _speedup(r) * spread >= _speedup(fastest)}
    return min(alike, key=lambda n: _size(alike[n]))


def _is_float(report: Report) -> bool:
    return report.placement is not None and report.placement.chosen in FLOATS


def _sqnr_db(report: Report) -> float:
    """The SQNR; infinite where outputs are exact or the float model's are all zero."""
    accuracy = report.accuracy
    return float("inf") if accuracy is None or accuracy.sqnr_db is None else accuracy.sqnr_db


def _speedup(report: Report) -> float:
    return report.latency.speedup if report.latency is not None else 0.0


def _size(report: Report) -> int:
    return report.output.size_bytes if report.output is not None else 0


def _figures(report: Report) -> str:
    float_kept = "float kept, " if _is_float(report) else ""
    megabytes = _size(report) / 1e6
    return f"{float_kept}{_sqnr_db(report):.1f} dB, {_speedup(report):.2f}x, {megabytes:.2f} MB"
