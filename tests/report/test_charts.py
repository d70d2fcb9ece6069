"""Pictures as SVG."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import HOSTILE

from ptq.report.charts import ErrorPoint, Reach, error_chart, histogram, pair_of_bars
from ptq.report.histograms import Bins

NUMBER = re.compile(r"-?\d+\.?\d*")

COUNTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=64)
VALUES = st.floats(-1e6, 1e6)


def parsed(svg):
    return ElementTree.fromstring(str(svg))


def points(errors):
    return [ErrorPoint(i, f"layer {i}", *pair) for i, pair in enumerate(errors, start=1)]


DECIBELS = st.none() | st.floats(-60, 160)


@given(st.lists(st.tuples(DECIBELS, DECIBELS), min_size=1, max_size=200))
def test_every_known_error_has_a_mark_inside_the_chart(errors):
    known = [d for pair in errors for d in pair if d is not None]
    if not known:
        assert error_chart(points(errors)) == ""
        return
    svg = parsed(error_chart(points(errors)))
    _, _, width, height = map(float, svg.get("viewBox").split())
    diamonds = [p for p in svg.iter("path") if p.get("class") == "iso"]
    circles = list(svg.iter("circle"))
    assert len(diamonds) == sum(isolated is not None for isolated, _ in errors)
    assert len(circles) == sum(accumulated is not None for _, accumulated in errors)
    places = [tuple(map(float, NUMBER.findall(p.get("d"))[:2])) for p in diamonds]
    places += [(float(c.get("cx")), float(c.get("cy"))) for c in circles]
    assert all(0 <= x <= width and -6 <= y <= height for x, y in places)


def test_a_lower_error_is_drawn_higher():
    svg = parsed(error_chart(points([(None, 10.0), (None, 30.0), (None, 20.0)])))
    first, second, third = (float(c.get("cy")) for c in svg.iter("circle"))
    assert second < third < first


def test_the_worst_layer_carries_its_number():
    svg = parsed(error_chart(points([(40.0, 40.0), (12.0, 30.0), (35.0, 29.0)])))
    numbers = [t.text for t in svg.iter("text") if t.get("class") == "worst"]
    assert numbers[0] == "#2"


@pytest.mark.parametrize("name", [n for n in HOSTILE if n.isprintable()])
def test_a_name_is_text_and_nothing_else(name):
    svg = parsed(error_chart([ErrorPoint(1, name, 20.0, 30.0)]))
    [title] = svg.iter("title")
    assert title.text.startswith(f"1: {name}\n")
    assert {e.tag for e in svg.iter()} <= {"svg", "g", "path", "circle", "text", "title"}


@given(COUNTS, VALUES, st.floats(1e-6, 1e3), VALUES, VALUES, st.integers(0, 10**9))
def test_a_histogram_stays_inside_its_box(counts, start, width, one, other, zeros):
    bins = Bins(lo=start, width=width, counts=tuple(counts), zeros=zeros)
    reach = Reach(min(one, other), max(one, other))
    svg = parsed(histogram(bins, reach, "values"))
    _, _, wide, tall = map(float, svg.get("viewBox").split())
    [bar] = [p for p in svg.iter("path") if p.get("class") == "bar"]
    across = [float(n) for n in re.findall(r"[MH](-?[\d.]+)", bar.get("d"))]
    assert across == sorted(across)
    assert all(0 <= x <= wide for x in across)
    level, levels = 0.0, []
    for step in re.findall(r"v(-?[\d.]+)", bar.get("d")):
        level -= float(step)
        levels.append(level)
    assert all(0 <= height <= tall for height in levels)
    for rect in svg.iter("rect"):
        assert float(rect.get("x")) >= 0
        assert float(rect.get("width")) >= 0
        # both are rounded to a tenth
        assert float(rect.get("x")) + float(rect.get("width")) <= wide + 0.11


def test_the_clipping_range_is_drawn_where_it_is():
    bins = Bins(lo=-4.0, width=1.0, counts=(1,) * 8, zeros=0)
    svg = parsed(histogram(bins, Reach(-2.0, 3.0), "values"))
    [clip] = [p for p in svg.iter("path") if p.get("class") == "clip"]
    # of 256 units for 8 bins: 2 and 7 bins from the left
    assert re.findall(r"M([\d.]+) ", clip.get("d")) == ["64", "224"]
    shaded = [(r.get("x"), r.get("width")) for r in svg.iter("rect")]
    assert shaded == [("0", "64"), ("224", "32")]


def test_a_range_beyond_all_values_shades_nothing():
    bins = Bins(lo=-1.0, width=0.5, counts=(1, 2, 3, 4), zeros=0)
    assert not list(parsed(histogram(bins, Reach(-2.0, 2.0), "values")).iter("rect"))


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_bars_are_as_long_as_the_values_they_stand_for(first, second):
    most = max(first, second)
    svg = parsed(pair_of_bars(first, second, most))
    widths = [float(r.get("width")) for r in svg.iter("rect")]
    for width, value in zip(widths, (first, second), strict=True):
        # a width is rounded to a tenth of a hundredth of the whole
        assert width == pytest.approx(100 * value / most if most else 0.0, abs=0.06)
