"""Which tensors have the codes of another, with another scale and zero point."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ptq.calib import Range
from ptq.plan.request import Request

#: A grid grows by no more than this for a shift to become a difference of zero points: two dB of
#: that tensor's noise, against all the noise of requantizing it, and its time. (PP-OCR recognition:
#: 12.4 dB without, 13.2 at 1.125, 13.6 at 1.25.)
GROWTH_LIMIT = 1.25


@dataclass(frozen=True, slots=True)
class Source:
    """The tensor whose codes another one has, and the map between their values.

    Attributes:
        tensor: its name.
        factor: what its values are multiplied by.
        shift: what is then added.
    """

    tensor: str
    factor: float = 1.0
    shift: float = 0.0

    @property
    def zero(self) -> float:
        """The value of the source where the copy is zero."""
        return -self.shift / self.factor

    def then(self, factor: float, shift: float) -> Source:
        """Return the source of a copy of the copy."""
        return Source(self.tensor, self.factor * factor, self.shift * factor + shift)

    def of(self, chosen: Range) -> Range:
        """Return the range of the copy, given that of the source."""
        ends = (chosen.lo, chosen.hi)
        lo, hi = (end * self.factor + self.shift for end in ends)
        # where zero is the very end, it is there but for rounding
        return covering(lo, hi, 0.0)

    def for_copy(self, wanted: Range) -> Range:
        """Return the range of the source that gives its copy this one."""
        ends = (wanted.lo, wanted.hi)
        lo, hi = ((end - self.shift) / self.factor for end in ends)
        return covering(lo, hi, 0.0)


def joined_sources(requests: Iterable[Request]) -> set[str]:
    """Return the tensors whose scale a concatenation may settle."""
    sources: dict[str, Source] = {}
    joined: set[str] = set()
    for request in requests:
        copied = sources.get(request.copies or "")
        source = Source(request.tensor) if copied is None else copied
        sources[request.tensor] = source
        for name in request.joins:
            # of a shifted part, it is not known yet whether it becomes a copy
            joined |= {request.tensor, name, sources[name].tensor}
    return joined


def grown(chosen: Range, zero: float, step: float) -> Range | None:
    """Return a range of which ``zero`` is a code as 0 is, or ``None`` if that costs too much.

    Args:
        chosen: a range that holds ``zero``.
        zero: the value, not 0.
        step: the step of the range.
    """
    codes = math.floor(abs(zero) / step * (1 + 1e-6))
    if codes < 1:
        return None
    growth = abs(zero) / (codes * step)
    return Range(chosen.lo * growth, chosen.hi * growth)


def covering(lo: float, hi: float, value: float) -> Range:
    """Return a range of these ends, enlarged if need be so that it holds a value."""
    return Range(min(lo, value), max(hi, value))
