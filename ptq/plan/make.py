"""Turn statistics into activation decisions: solve each range, then settle shared scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ptq.calib import Range, Solver
from ptq.errors import CalibrationError, PtqError
from ptq.numerics.affine import (
    QParams,
    exponent_of_range,
    qparams_from_range,
    qparams_power_of_two,
)
from ptq.numerics.qtype import QType
from ptq.plan.plan import Decision
from ptq.plan.request import Request
from ptq.stats.base import TensorStats

#: A concatenation is tied to one scale if that costs no part more than this factor in step size:
#: equal scales make it a copy (measured 8.6 times faster, KERNELS section 2), one bit is the price.
TIE_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class RangeChoice:
    """How ranges become scales: the solver, the grid, and whether zero is in the middle."""

    solver: Solver
    qtype: QType
    symmetric: bool


def decide(
    requests: Iterable[Request],
    stats: Mapping[str, TensorStats],
    choice: RangeChoice,
    *,
    fixed: Mapping[str, Range] | None = None,
) -> dict[str, Decision]:
    """Return the decision for every requested tensor.

    Args:
        requests: the tensors, sources first.
        stats: what was observed, by tensor name.
        choice: solver, grid and symmetry.
        fixed: ranges that a search has chosen already; they replace the solver's.

    Raises:
        CalibrationError: a tensor has no statistics, or they determine no range.
    """
    asked = list(requests)
    source = _sources(asked)
    ranges = dict(fixed or {})
    for request in asked:
        name = request.tensor
        if source[name] == name and not request.joins and name not in ranges:
            ranges[name] = _solve(request, stats, choice)
    for request in asked:
        if request.joins and request.tensor not in ranges:
            _join(request, source, ranges)
    return {r.tensor: _decision(r, source, ranges, stats, choice) for r in asked}


def _sources(asked: list[Request]) -> dict[str, str]:
    """Map each tensor to the one whose scale it takes: itself, unless it is a copy."""
    source: dict[str, str] = {}
    for request in asked:
        source[request.tensor] = source[request.copies] if request.copies else request.tensor
    return source


def _solve(request: Request, stats: Mapping[str, TensorStats], choice: RangeChoice) -> Range:
    if request.constant is not None:
        return _around(request.constant, choice)
    observed = stats.get(request.observed or "")
    if observed is None:
        raise CalibrationError(
            f"tensor '{request.observed}' was not observed; calibrate this model again"
        )
    try:
        return choice.solver.solve(observed, choice.qtype, symmetric=choice.symmetric)
    except PtqError as error:
        raise CalibrationError(f"tensor '{request.observed}': {error}") from error


def _around(constant: float, choice: RangeChoice) -> Range:
    """Return a range in which a constant is a code, or as near to one as the scales allow."""
    if choice.solver.power_of_two:
        largest = 2 ** (choice.qtype.bits - 1)
        step = 2.0 ** math.ceil(math.log2(abs(constant) / (largest - 1))) if constant else 1.0
        return Range(-largest * step, (largest - 1) * step)
    return Range(min(constant, 0.0), max(constant, 0.0))


def _join(request: Request, source: Mapping[str, str], ranges: dict[str, Range]) -> None:
    """Give a concatenation the union of its parts, and its parts the same where that is cheap."""
    parts = [source[name] for name in request.joins]
    union = Range(min(ranges[p].lo for p in parts), max(ranges[p].hi for p in parts))
    ranges[request.tensor] = union
    if all(_width(union) <= TIE_LIMIT * _width(ranges[p]) for p in parts):
        ranges.update(dict.fromkeys(parts, union))


def _width(r: Range) -> float:
    return r.hi - r.lo


def _decision(
    request: Request,
    source: Mapping[str, str],
    ranges: Mapping[str, Range],
    stats: Mapping[str, TensorStats],
    choice: RangeChoice,
) -> Decision:
    root = source[request.tensor]
    chosen = ranges[root]
    params = _params(chosen, choice)
    observed = stats.get(root)
    clipped = 0.0 if observed is None else observed.hist.share_outside(chosen.lo, chosen.hi)
    return Decision(
        qtype=choice.qtype.name,
        lo=chosen.lo,
        hi=chosen.hi,
        scale=float(params.scale),
        zero_point=int(params.zero_point),
        clip_share=clipped,
        observed=root,
    )


def _params(chosen: Range, choice: RangeChoice) -> QParams:
    if choice.solver.power_of_two:
        return qparams_power_of_two(exponent_of_range(chosen.lo, choice.qtype), choice.qtype)
    return qparams_from_range(chosen.lo, chosen.hi, choice.qtype, symmetric=choice.symmetric)
