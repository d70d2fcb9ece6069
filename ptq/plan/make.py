"""Turn statistics into activation decisions: solve each range, then settle shared scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from ptq.calib import Range, Solver
from ptq.calib.levels import Levels
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
from ptq.plan.sources import GROWTH_LIMIT, Source, covering, grown, joined_sources
from ptq.plan.staircase import coded
from ptq.stats.base import TensorStats

#: A concatenation is tied to one scale if that costs no part more than this factor in step size:
#: equal scales make it a copy (measured 8.6 times faster, KERNELS section 2), one bit is the price.
TIE_LIMIT = 2.0

#: Of so many bits there are as many codes as the container has: there is nothing to choose.
_FULL_BITS = 8


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
    others: Mapping[str, RangeChoice] | None = None,
    fixed: Mapping[str, Range] | None = None,
    bits: Mapping[str, int] | None = None,
) -> dict[str, Decision]:
    """Return the decision for every requested tensor.

    Args:
        requests: the tensors, sources first.
        stats: what was observed, by tensor name.
        choice: solver, grid and symmetry.
        others: those of tensors with a choice of their own. What shares the scale of another tensor
            has that one's.
        fixed: ranges that a search has chosen already; they replace the solver's.
        bits: the width of the grids of tensors that are not to have that of their choice, the same
            for all that share codes (`ptq.plan.widths`).

    Raises:
        CalibrationError: a tensor has no statistics, or they determine no range.
    """
    choices = _Choices(choice, others or {}, bits or {})
    return _Making(list(requests), stats, choices, dict(fixed or {})).decisions()


@dataclass(frozen=True, slots=True)
class _Choices:
    """The choice for all tensors but some, for those, and the bits of single ones.

    Tensors with levels of their own have them on the grid of their container.
    """

    common: RangeChoice
    others: Mapping[str, RangeChoice]
    bits: Mapping[str, int]
    levels: dict[str, Levels] = field(default_factory=dict)

    def of(self, tensor: str) -> RangeChoice:
        choice = self.others.get(tensor, self.common)
        bits = self.bits.get(tensor, choice.qtype.bits)
        if tensor in self.levels:
            bits = 8 * choice.qtype.storage.itemsize
        if bits == choice.qtype.bits:
            return choice
        return replace(choice, qtype=replace(choice.qtype, bits=bits))


class _Making:
    """Ranges and sources, as far as they are known."""

    def __init__(
        self,
        asked: list[Request],
        stats: Mapping[str, TensorStats],
        choices: _Choices,
        fixed: dict[str, Range],
    ) -> None:
        self.asked = asked
        self.stats = stats
        self.choices = choices
        self.settled = {*fixed, *joined_sources(asked)}
        self.ranges = fixed
        self.sources: dict[str, Source] = {}
        self.zeros: dict[str, float] = {}

    def decisions(self) -> dict[str, Decision]:
        for request in self.asked:
            self._find_source(request)
        for request in self.asked:
            if request.joins and request.tensor not in self.ranges:
                _join(request, self.sources, self.ranges, self.choices)
        return {name: self._decision(name, source) for name, source in self.sources.items()}

    def _decision(self, name: str, source: Source) -> Decision:
        choice = self.choices.of(source.tensor)
        made = _decision(source, self.ranges, self.stats, choice)
        levels = self.choices.levels.get(source.tensor)
        if levels is None:
            return made
        codes, starts = coded(levels, _params(self.ranges[source.tensor], choice))
        own = starts if name == source.tensor else ()
        return msgspec.structs.replace(made, levels=codes, starts=own)

    def _find_source(self, request: Request) -> None:
        name = request.tensor
        if request.copies:
            source = self.sources[request.copies].then(request.factor, request.shift)
            if request.shift == 0.0 or self._has_zero(source):
                self.sources[name] = source
                return
        self.sources[name] = Source(name)
        if not request.joins and name not in self.ranges:
            choice = self.choices.of(name)
            levels = None if name in self.settled else _levels(request, self.stats, choice)
            if levels is not None:
                self.choices.levels[name] = levels
                self.ranges[name] = Range(levels.lo, levels.hi)
            else:
                self.ranges[name] = _solve(request, self.stats, choice)
            if request.constant is not None or levels is not None:
                self.settled.add(name)

    def _has_zero(self, source: Source) -> bool:
        """Make a code of the source's value where the copy is zero, if that costs little."""
        known = self.zeros.get(source.tensor)
        if known is not None:
            return math.isclose(known, source.zero, rel_tol=1e-6)
        choice = self.choices.of(source.tensor)
        if source.tensor in self.settled or choice.solver.power_of_two:
            return False
        chosen = self.ranges[source.tensor]
        step = float(_params(chosen, choice).scale)
        wide = covering(chosen.lo, chosen.hi, source.zero)
        wanted = grown(wide, source.zero, float(_params(wide, choice).scale))
        if wanted is None or float(_params(wanted, choice).scale) > GROWTH_LIMIT * step:
            return False
        self.ranges[source.tensor], self.zeros[source.tensor] = wanted, source.zero
        return True


def _solve(request: Request, stats: Mapping[str, TensorStats], choice: RangeChoice) -> Range:
    if request.constant is not None:
        return _around(*request.constant, choice)
    observed = stats.get(request.observed or "")
    if observed is None:
        raise CalibrationError(
            f"tensor '{request.observed}' was not observed; calibrate this model again"
        )
    try:
        return choice.solver.solve(observed, choice.qtype, symmetric=choice.symmetric)
    except PtqError as error:
        raise CalibrationError(f"tensor '{request.observed}': {error}") from error


def _levels(
    request: Request, stats: Mapping[str, TensorStats], choice: RangeChoice
) -> Levels | None:
    """Return the levels of a tensor of few bits, where the method has some in place of a grid."""
    observed = stats.get(request.observed or "")
    if observed is None or choice.solver.uniform or choice.qtype.bits >= _FULL_BITS:
        return None
    return choice.solver.levels(observed, choice.qtype, symmetric=choice.symmetric)


def _around(least: float, largest: float, choice: RangeChoice) -> Range:
    """Return the range of a constant; one number is a code, or as near to one as the scales allow.

    Args:
        least: its least value.
        largest: its largest value.
        choice: what ranges are allowed.
    """
    if choice.solver.power_of_two:
        codes = 2 ** (choice.qtype.bits - 1)
        magnitude = max(abs(least), abs(largest))
        step = 2.0 ** math.ceil(math.log2(magnitude / (codes - 1))) if magnitude else 1.0
        return Range(-codes * step, (codes - 1) * step)
    return Range(min(least, 0.0), max(largest, 0.0))


def _join(
    request: Request,
    sources: Mapping[str, Source],
    ranges: dict[str, Range],
    choices: _Choices,
) -> None:
    """Give a concatenation the union of its parts, and its parts the same where that is cheap."""
    parts = [sources[name] for name in request.joins]
    choice = choices.of(request.tensor)
    given = [part.of(ranges[part.tensor]) for part in parts]
    union = Range(min(r.lo for r in given), max(r.hi for r in given))
    if not all(_alike(choice, choices.of(part.tensor)) for part in parts):
        # of equal ranges, they would have other scales
        around = choice.solver.power_of_two
        ranges[request.tensor] = _around(union.lo, union.hi, choice) if around else union
        return
    shifted = any(part.shift for part in parts)
    if not shifted and all(_width(union) <= TIE_LIMIT * _width(r) for r in given):
        if any(part.factor != 1.0 for part in parts):
            union = _on_codes(union, choice)
        ranges.update({part.tensor: part.for_copy(union) for part in parts})
    ranges[request.tensor] = union


def _alike(one: RangeChoice, other: RangeChoice) -> bool:
    """Return whether two choices make the same scale of the same range."""
    kinds = [(c.solver.power_of_two, c.symmetric, c.qtype) for c in (one, other)]
    return kinds[0] == kinds[1]


def _on_codes(chosen: Range, choice: RangeChoice) -> Range:
    """Return a range with the ends where the codes end, so that no multiple rounds otherwise."""
    params = _params(chosen, choice)
    step, zero = float(params.scale), int(params.zero_point)
    return Range((choice.qtype.qmin - zero) * step, (choice.qtype.qmax - zero) * step)


def _width(r: Range) -> float:
    return r.hi - r.lo


def _decision(
    source: Source,
    ranges: Mapping[str, Range],
    stats: Mapping[str, TensorStats],
    choice: RangeChoice,
) -> Decision:
    chosen = ranges[source.tensor]
    params = _params(chosen, choice)
    observed = stats.get(source.tensor)
    clipped = 0.0 if observed is None else observed.hist.share_outside(chosen.lo, chosen.hi)
    copied = source.of(chosen)
    scale = _scale(params, copied, source, choice)
    return Decision(
        qtype=choice.qtype.name,
        lo=copied.lo,
        hi=copied.hi,
        scale=scale,
        zero_point=int(params.zero_point) + _moved(source, params),
        clip_share=clipped,
        observed=source.tensor,
    )


def _scale(params: QParams, copied: Range, source: Source, choice: RangeChoice) -> float:
    """Return the scale of a copy.

    It is that of the copy's own range where that has the zero point which the codes were made
    with: of tensors tied to one range, the scales are then equal to the bit.
    """
    if source.factor == 1.0:
        return float(params.scale)
    own = _params(copied, choice) if source.shift == 0.0 else params
    if source.shift == 0.0 and int(own.zero_point) == int(params.zero_point):
        return float(own.scale)
    return float(np.float32(float(params.scale) * source.factor))


def _moved(source: Source, params: QParams) -> int:
    """Return by how many codes the zero point of a copy lies above that of its source."""
    return round(source.zero / float(params.scale))


def _params(chosen: Range, choice: RangeChoice) -> QParams:
    if choice.solver.power_of_two:
        return qparams_power_of_two(exponent_of_range(chosen.lo, choice.qtype), choice.qtype)
    return qparams_from_range(chosen.lo, chosen.hi, choice.qtype, symmetric=choice.symmetric)
