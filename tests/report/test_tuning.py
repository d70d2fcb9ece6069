"""What tuning found, as text and as a page."""

import re

import msgspec
import pytest

from ptq.evaluate.latency import Latency, Timing
from ptq.report.check import Figure, Held
from ptq.report.report import Environment
from ptq.report.scatter import Mark, scatter
from ptq.report.tuning import TunedPoint, Tuning, tuning_text
from ptq.report.tuning_page import tuning_markdown, tuning_page

HOSTILE = "</style><script>alert(1)</script>|`\n"


def figure(drop, name="agreement", lo=None, hi=None):
    return Figure(
        name=name, title=name, unit="share", higher_is_better=True, value=1 - drop,
        reference=1.0, drop=drop, drop_lo=lo, drop_hi=hi, units=100,
    )  # fmt: skip


def point(rung, drop, speedup, size, verdict="missed", **more):
    timing = Timing(1.0, 1.0, 1.0)
    return TunedPoint(
        rung=rung,
        path=("as given", rung),
        choosing=(figure(drop),),
        reporting=(figure(drop + 0.01, lo=drop, hi=drop + 0.02),),
        size_bytes=size,
        latency=Latency(timing, timing, speedup, 1.0, 1.1, 100, 1),
        held=(Held(figure="agreement", option="--max-drop", measured=drop, limit=0.01,
                   verdict=verdict),),
        **more,
    )  # fmt: skip


def made(points, winner=0, satisfied=False, held=()):
    return Tuning(
        model="/some/model.onnx", size_bytes=1000, calibration="c", data="e", report_data="e",
        samples=(50, 50), tasks=("agreement",), limits={"--max-drop": "1%"}, points=tuple(points),
        winner=winner, satisfied=satisfied, held=held, confidence=0.95, spent_s=12.0,
        budget_s=600.0, output="o.onnx", notices=(HOSTILE,), environment=Environment.here(),
    )  # fmt: skip


POINTS = [
    point("mse", 0.05, 1.5, 300, front=True),
    point("gptq", 0.005, 1.4, 310, verdict="holds", front=True),
    TunedPoint(rung="smooth", path=("as given", "smooth"), left_out="takes about 9 s"),
    TunedPoint(rung="auto", path=("as given", "auto"), left_out="takes about 9 s"),
    TunedPoint(rung="dynamic", path=("dynamic",), failed=HOSTILE),
]


def test_the_table_marks_the_chosen_one_and_the_front():
    lines = tuning_text(made(POINTS, winner=1, satisfied=True)).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["*", "=>"]
    assert "1.50 points (0.50..2.50 points)" in lines[2]
    assert "0.310x" in lines[2]
    assert "  smooth, auto: takes about 9 s" in lines


@pytest.mark.parametrize(
    ("satisfied", "says"),
    [(True, "'as given + gptq' holds every limit"), (False, "'as given + gptq' comes nearest")],
)
def test_the_verdict_names_the_model(satisfied, says):
    missed = Held(figure="agreement", option="--max-drop", measured=0.1, limit=0.01,
                  verdict="missed")  # fmt: skip
    assert says in made(POINTS, winner=1, satisfied=satisfied, held=(missed,)).verdict


def test_json_says_everything():
    found = made(POINTS, winner=1)
    assert msgspec.json.decode(found.to_json(), type=Tuning) == found


def test_a_page_draws_every_point_and_takes_nothing_for_markup():
    page = tuning_page(made(POINTS, winner=1))
    assert page.count("<circle") == 2
    assert "<script" not in page
    assert "alert(1)" in page


def test_markdown_has_a_row_for_each_point_and_no_other_cells():
    rows = [r for r in tuning_markdown(made(POINTS)).splitlines() if r.startswith("|")]
    assert len(rows) == 4
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def marks(*places):
    return [Mark(x, y, y, y, 0.5, "m", "other") for x, y in places]


def test_a_scatter_has_its_points_in_the_picture_and_in_their_order():
    picture = scatter(marks((0.5, 3.0), (1.0, 0.0), (9.0, -2.0)), across="a", up="b")
    x, y = ([float(v) for v in re.findall(rf'c{k}="([\d.]+)"', picture)] for k in "xy")
    assert 0 < x[0] < x[1] < x[2] < 760
    assert 0 < y[0] < y[1] < y[2] < 340
    # lengths are in proportion: 8.0 to 0.5 across, 2 to 3 up
    assert (x[2] - x[1]) / (x[1] - x[0]) == pytest.approx(16, rel=0.02)
    assert (y[2] - y[1]) / (y[1] - y[0]) == pytest.approx(2 / 3, rel=0.02)


@pytest.mark.parametrize("places", [[(1.0, 0.0)], [(1.0, 0.0)] * 3, [(1.0, -5.0), (1.0, 1e-9)]])
def test_a_scatter_of_points_in_one_place_is_drawn(places):
    assert scatter(marks(*places), across="a", up="b").count("<circle") == len(places)
    assert scatter([], across="a", up="b") == ""
