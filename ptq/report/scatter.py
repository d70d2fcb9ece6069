"""A scatter of points in two figures, as inline SVG coloured by the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from markupsafe import Markup

#: Size of the chart, in its own units; texts are 13 of them high.
_WIDTH, _HEIGHT = 760, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 16, 46

#: Radius of a mark of a file as large as the float model, and the least there is.
_RADIUS, _LEAST_RADIUS = 12.0, 4.0

#: About how many ticks either axis has.
_TICKS = 6


Kind: TypeAlias = Literal["chosen", "front", "other"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One point.

    Attributes:
        x: across.
        y: up.
        lo: the lower end of its interval.
        hi: the upper end.
        size: its area, where 1 is the largest.
        label: said to who points at it.
        kind: how it is drawn.
    """

    x: float
    y: float
    lo: float
    hi: float
    size: float
    label: str
    kind: Kind


def scatter(marks: Sequence[Mark], *, across: str, up: str) -> Markup:
    """Draw points with their intervals; empty if there are none.

    Args:
        marks: the points.
        across: what the horizontal axis says.
        up: what the vertical axis says.
    """
    if not marks:
        return Markup("")
    plot = _Plot(
        _Axis.over([m.x for m in marks], _LEFT, _WIDTH - _RIGHT),
        _Axis.over([v for m in marks for v in (m.lo, m.hi, 0.0)], _HEIGHT - _BOTTOM, _TOP),
    )
    parts = [*plot.grid(across, up), *(plot.mark(m) for m in marks)]
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, f"{up} over {across}, a mark for each model", Markup("").join(parts))


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps values to the units of the chart."""

    lo: float
    hi: float
    begin: float
    end: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> _Axis:
        lo, hi = min(values), max(values)
        if hi - lo <= 1e-9 * max(abs(lo), abs(hi), 1e-9):
            lo, hi = lo - 0.5 * (abs(lo) or 1.0), hi + 0.5 * (abs(hi) or 1.0)
        step = _nice((hi - lo) / _TICKS)
        return cls(step * math.floor(lo / step), step * math.ceil(hi / step), begin, end, step)

    def at(self, value: float) -> float:
        return self.begin + (value - self.lo) / (self.hi - self.lo) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        return [self.lo + i * self.step for i in range(round((self.hi - self.lo) / self.step) + 1)]


@dataclass(frozen=True, slots=True)
class _Plot:
    across: _Axis
    up: _Axis

    def grid(self, across: str, up: str) -> Iterator[Markup]:
        for tick in self.up.ticks():
            y = self.up.at(tick)
            yield _path("grid", f"M{_LEFT} {_n(y)}H{_WIDTH - _RIGHT}")
            yield _text(_LEFT - 8, y + 4.5, f"{tick:.4g}", "end")
        for tick in self.across.ticks():
            yield _text(self.across.at(tick), _HEIGHT - _BOTTOM + 18, f"{tick:.4g}", "middle")
        yield _text(_LEFT, _TOP - 4, up, "start")
        yield _text(_WIDTH - _RIGHT, _HEIGHT - 8, across, "end")

    def mark(self, mark: Mark) -> Markup:
        x, y = self.across.at(mark.x), self.up.at(mark.y)
        radius = max(_LEAST_RADIUS, _RADIUS * math.sqrt(min(mark.size, 1.0)))
        low, high = self.up.at(mark.lo), self.up.at(mark.hi)
        kind = {"chosen": "iso", "front": "acc", "other": "rest"}[mark.kind]
        return Markup(
            "<g><title>{}</title>{}"
            '<circle class="{}" cx="{}" cy="{}" r="{}" fill-opacity="0.75"/></g>'
        ).format(
            mark.label, _path("grid", f"M{_n(x)} {_n(low)}V{_n(high)}"), kind, _n(x), _n(y),
            _n(radius),
        )  # fmt: skip


def _path(kind: str, d: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, d)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        _n(x), _n(y), anchor, text
    )


def _n(value: float) -> str:
    """Return a coordinate to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")


def _nice(step: float) -> float:
    """Return the next of 1, 2, 5, 10 times a power of ten."""
    size = 10.0 ** math.floor(math.log10(step))
    return next(size * m for m in (1, 2, 5, 10) if size * m >= step * (1 - 1e-9))
