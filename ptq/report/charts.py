"""Pictures of a report as inline SVG: plain strings, coloured by the style sheet of the page.

Nothing in them is a number of pixels on the screen: they scale with the page, and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ptq.report.histograms import Bins

#: Size of the chart of errors, in its own units; texts are 13 of them high.
_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 14, 42

#: How many of the worst layers have their numbers written beside them, and how far apart at least.
_LABELLED, _APART = 5, 30

#: What is above is drawn at the top: nobody has to tell such layers apart, and a chart with room
#: for them would press the rest together.
_MOST_DB = 80

#: Size of a histogram, in its own units; it is stretched to its place on the page.
_SPAN, _TALL = 256, 64


@dataclass(frozen=True, slots=True)
class ErrorPoint:
    """The errors of one layer.

    Attributes:
        number: its place in the table, from 1.
        label: what it is called.
        isolated_db: the SQNR if only this layer is quantized, if known.
        accumulated_db: the SQNR with everything before it quantized too, if known.
    """

    number: int
    label: str
    isolated_db: float | None
    accumulated_db: float | None


def error_chart(points: Sequence[ErrorPoint]) -> Markup:
    """Draw isolated and accumulated SQNR over the depth of the network; empty if none is known."""
    known = [d for p in points for d in (p.isolated_db, p.accumulated_db) if d is not None]
    if not known:
        return Markup("")
    low = min(0.0, 10 * math.floor(max(min(known), -20.0) / 10))
    high = max(low + 10, min(_MOST_DB, 10 * math.ceil((max(known) + 1) / 10)))
    last = max(points[-1].number, 2)
    plot = _Plot(1, last, low, high)
    parts = [
        *plot.grid(),
        _path("acc", plot.line((p.number, p.accumulated_db) for p in points)),
        *(_mark(plot, p) for p in points),
        *_labels(plot, points),
    ]
    return _svg(
        parts,
        f"0 0 {_WIDTH} {_HEIGHT}",
        "chart",
        "signal to quantization noise ratio of each layer in dB, over the depth of the network",
    )


@dataclass(frozen=True, slots=True)
class _Plot:
    """Maps layers and decibels to the units of the chart."""

    first: int
    last: int
    low: float
    high: float

    def x(self, number: float) -> float:
        share = (number - self.first) / (self.last - self.first)
        return _LEFT + 8 + share * (_WIDTH - _LEFT - _RIGHT - 16)

    def y(self, decibels: float) -> float:
        share = (min(max(decibels, self.low), self.high) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> Iterable[Markup]:
        step = 10 if self.high - self.low <= 50 else 20
        for decibels in range(int(self.low), int(self.high) + 1, step):
            y = self.y(decibels)
            yield _path("grid", f"M{_LEFT} {_n(y)}H{_WIDTH - _RIGHT}")
            more = "+" if decibels == _MOST_DB else ""
            yield _text(_LEFT - 8, y + 4.5, f"{decibels}{more}", "end")
        yield _text(_LEFT - 8, _HEIGHT - 8, "dB", "end")
        step = _nice((self.last - self.first) / 10)
        for number in [1, *range(step, self.last + 1, step)]:
            if number != 1 or step > 1:
                yield _text(self.x(number), _HEIGHT - _BOTTOM + 20, f"{number}", "middle")
        yield _text(_WIDTH - _RIGHT, _HEIGHT - 8, "layer", "end")

    def line(self, points: Iterable[tuple[int, float | None]]) -> str:
        """Return the path through the points; it is broken where there is none."""
        parts, drawn = [], False
        for number, decibels in points:
            if decibels is None:
                continue
            parts.append(f"{'L' if drawn else 'M'}{_n(self.x(number))} {_n(self.y(decibels))}")
            drawn = True
        return "".join(parts)


def _mark(plot: _Plot, point: ErrorPoint) -> Markup:
    """Draw what is known of a layer, and say it to who points at it."""
    x, parts, said = plot.x(point.number), [], [f"{point.number}: {point.label}"]
    if point.accumulated_db is not None:
        y = plot.y(point.accumulated_db)
        parts.append(Markup('<circle class="acc" cx="{}" cy="{}" r="2.5"/>').format(_n(x), _n(y)))
        said.append(f"accumulated {point.accumulated_db:.1f} dB")
    if point.isolated_db is not None:
        y = plot.y(point.isolated_db)
        parts.append(_path("iso", f"M{_n(x)} {_n(y - 5)}l5 5l-5 5l-5 -5z"))
        said.append(f"isolated {point.isolated_db:.1f} dB")
    if not parts:
        return Markup("")
    title = Markup("<title>{}</title>").format("\n".join(said))
    return Markup("<g>{}{}</g>").format(title, Markup("").join(parts))


def _labels(plot: _Plot, points: Sequence[ErrorPoint]) -> Iterable[Markup]:
    """Write the numbers of the worst layers under their marks."""
    known = [(p.isolated_db, p.number) for p in points if p.isolated_db is not None]
    taken: list[float] = []
    for decibels, number in sorted(known)[:_LABELLED]:
        x = plot.x(number)
        if all(abs(x - other) >= _APART for other in taken):
            taken.append(x)
            y = min(plot.y(decibels) + 19, _HEIGHT - _BOTTOM - 3)
            yield _text(x, y, f"#{number}", "middle", "worst")


def pair_of_bars(first: float, second: float, most: float) -> Markup:
    """Draw two values as bars of one scale, the first above the second.

    Args:
        first: of the float model.
        second: of the quantized model.
        most: what would fill the width.
    """
    widths = [100 * value / most if most > 0 else 0.0 for value in (first, second)]
    return Markup(
        '<svg class="bars" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="float" y="1" width="{}" height="6"/>'
        '<rect class="int" y="9" width="{}" height="6"/></svg>'
    ).format(*(_n(width) for width in widths))


@dataclass(frozen=True, slots=True)
class Reach:
    """What codes cover.

    Attributes:
        lo: lower end.
        hi: upper end.
        least_lo: where channels differ, the lower end of what all of them cover.
        least_hi: the upper end of that.
    """

    lo: float
    hi: float
    least_lo: float | None = None
    least_hi: float | None = None


def histogram_domain(bins: Bins, reach: Reach) -> tuple[float, float]:
    """Return the values at the ends of a histogram: all that was seen, all that codes cover."""
    ends = [reach.lo, reach.hi, 0.0]
    if bins.counts:
        ends += [bins.lo, bins.hi]
    return min(ends), max(ends)


def histogram(bins: Bins, reach: Reach, what: str) -> Markup:
    """Draw a histogram, its counts as logarithms, with the range of the codes.

    What lies outside of the range is shaded. Exact zeros are a line of their own.

    Args:
        bins: the counts.
        reach: what the codes cover.
        what: said to who cannot see it.
    """
    lo, hi = histogram_domain(bins, reach)
    width = hi - lo or 1.0

    def x(value: float) -> float:
        return _SPAN * (value - lo) / width

    most = math.log1p(max([*bins.counts, bins.zeros, 1]))
    parts = []
    if reach.lo > lo:
        parts.append(_rect("out", 0, x(reach.lo)))
    if reach.hi < hi:
        parts.append(_rect("out", x(reach.hi), _SPAN - x(reach.hi)))
    heights = [round(_TALL * math.log1p(count) / most) for count in bins.counts]
    parts.append(_path("bar", _steps([x(bins.lo + i * bins.width) for i in _edges(bins)], heights)))
    if bins.zeros:
        height = round(_TALL * math.log1p(bins.zeros) / most)
        parts.append(_path("zero", f"M{_n(x(0.0))} {_TALL}v{-height}"))
    if reach.least_lo is not None and reach.least_hi is not None:
        inner = [v for v in (reach.least_lo, reach.least_hi) if v not in (reach.lo, reach.hi)]
        parts.append(_path("inner", "".join(f"M{_n(x(v))} 0v{_TALL}" for v in inner)))
    parts.append(_path("clip", "".join(f"M{_n(x(v))} 0v{_TALL}" for v in (reach.lo, reach.hi))))
    return _svg(parts, f"0 0 {_SPAN} {_TALL}", "hist", what, stretch=True)


def _edges(bins: Bins) -> range:
    return range(len(bins.counts) + 1)


def _steps(edges: Sequence[float], heights: Sequence[int]) -> str:
    """Return the outline of bars between ascending edges."""
    if not heights:
        return ""
    parts, level = [f"M{_n(edges[0])} {_TALL}"], 0
    for right, height in zip(edges[1:], heights, strict=True):
        if height != level:
            parts.append(f"v{level - height}")
            level = height
        parts.append(f"H{_n(right)}")
    return "".join([*parts, f"V{_TALL}z"])


def _svg(
    parts: Iterable[Markup], box: str, kind: str, what: str, *, stretch: bool = False
) -> Markup:
    ratio = Markup(' preserveAspectRatio="none"') if stretch else Markup("")
    return Markup('<svg class="{}" viewBox="{}"{} role="img" aria-label="{}">{}</svg>').format(
        kind, box, ratio, what, Markup("").join(parts)
    )


def _path(kind: str, d: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, d) if d else Markup("")


def _rect(kind: str, x: float, width: float) -> Markup:
    return Markup('<rect class="{}" x="{}" width="{}" height="{}"/>').format(
        kind, _n(x), _n(width), _TALL
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, _n(x), _n(y), anchor, text
    )


def _n(value: float) -> str:
    """Return a coordinate to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")


def _nice(step: float) -> int:
    """Return the next of 1, 2, 5, 10, 20 and so on."""
    size = int(10 ** math.floor(math.log10(max(step, 1.0))))
    return next(size * m for m in (1, 2, 5, 10) if size * m >= step)
