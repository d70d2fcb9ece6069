"""What a threshold means, and what the noise of the samples has to do with its verdict."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.figures import mse, size, sqnr, top1

from ptq.errors import ConfigError
from ptq.evaluate.thresholds import Drop, Thresholds, hold, number, ratio, samples_needed, share
from ptq.report.check import Figure


def held(figure, noise="fail", **limits):
    [found] = hold([figure], ["topk"], Thresholds(**limits), noise=noise, confidence=0.95)
    return found


# -- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.5%", "0.005", 0.005, " 0.5% "])
def test_half_a_point_of_a_share_can_be_written_as_percentage_or_as_number(text):
    assert Drop.parse(text).of(top1(0)) == pytest.approx(0.005)


def test_a_percentage_of_other_figures_is_relative_to_the_float_model():
    error = mse(5.0, reference=4.0)
    assert Drop.parse("10%").of(error) == pytest.approx(0.4)
    assert Drop.parse("0.1").of(error) == pytest.approx(0.1)


@pytest.mark.parametrize("reference", [None, 0.0])
def test_a_percentage_of_nothing_is_refused(reference):
    with pytest.raises(ConfigError, match="give a plain number"):
        Drop.parse("10%").of(mse(5.0, reference))


def test_a_drop_of_more_than_all_is_taken_for_forgotten_percent():
    with pytest.raises(ConfigError, match="write 2% if points are meant"):
        Drop.parse("2").of(top1(0))


@pytest.mark.parametrize("text", ["much", "", "%", "nan", "inf", "-1%", "0,5%"])
def test_what_is_no_drop_is_refused(text):
    with pytest.raises(ConfigError, match="--max-drop"):
        Drop.parse(text)


@pytest.mark.parametrize("text", ["99", "101%", "-1%", "nan", "all"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ConfigError, match="--min-agreement"):
        share(text, "--min-agreement")


@pytest.mark.parametrize("text", ["0", "-3", "nan", "x"])
def test_what_is_no_ratio_is_refused(text):
    with pytest.raises(ConfigError, match="--max-size-ratio"):
        ratio(text, "--max-size-ratio")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_limit_that_decides_nothing_is_refused(value):
    with pytest.raises(ConfigError, match="--min-sqnr"):
        number(value, "--min-sqnr")


def test_thresholds_without_any_are_false():
    assert not Thresholds()
    assert Thresholds(min_sqnr=0.0)


# -- verdicts ---------------------------------------------------------------------------------


@given(images=st.integers(0, 400), allowed=st.integers(0, 399))
def test_a_drop_of_so_many_images_holds_if_so_many_are_allowed(images, allowed):
    # 0.3 - 0.1 > 0.2 in floating point: what is equal on paper must hold
    figure = top1(0.9 - (0.9 - images / 400))
    found = held(figure, max_drop=Drop(allowed / 400))
    assert found.verdict == ("holds" if images <= allowed else "missed")


@given(value=st.floats(-50, 50), limit=st.floats(-50, 50), width=st.floats(0, 30))
def test_a_verdict_is_certain_if_and_only_if_the_interval_does_not_cross_the_limit(
    value, limit, width
):
    found = held(sqnr(value, value - width, value + width), min_sqnr=limit)
    rounding = 1e-12 * max(1, abs(limit))
    assert found.verdict == ("missed" if limit - value > rounding else "holds")
    ends = {limit - (value + side) > rounding for side in (-width, width)}
    assert found.certain == (len(ends) == 1)
    assert bool(found.remark) != found.certain


@given(value=st.floats(-50, 50), limit=st.floats(-50, 50), width=st.floats(0, 30))
def test_letting_noise_pass_only_ever_saves_what_is_uncertain(value, limit, width):
    figure = sqnr(value, value - width, value + width)
    strict, lax = (held(figure, noise, min_sqnr=limit) for noise in ("fail", "pass"))
    assert lax.verdict == ("missed" if strict.verdict == "missed" and strict.certain else "holds")
    assert lax.certain == strict.certain


def test_the_remark_says_the_samples_the_interval_and_how_many_would_tell():
    found = held(top1(0.01, -0.01, 0.03), max_drop=Drop(0.005, percent=True))
    assert found.verdict == "missed"
    # from 0.01 down to -0.01 is 4 times as far as to the limit: 16 times 200 samples
    assert found.remark == (
        "within the noise of 200 samples (95%: -1.00..3.00 points); about 3200 samples would tell"
    )
    assert found.needed == 3200


def test_what_passes_within_the_noise_says_so():
    found = held(top1(0.01, -0.01, 0.03), "pass", max_drop=Drop(0.005))
    assert found.verdict == "holds"
    assert found.remark.startswith("missed as measured, but within the noise of 200 samples")


def test_one_sample_says_nothing_of_its_noise():
    found = held(sqnr(20.0, units=1), min_sqnr=10.0)
    assert (found.verdict, found.certain) == ("holds", False)
    assert "of one sample" in found.remark


def test_equal_outputs_have_more_decibels_than_any_limit():
    found = held(sqnr(None), min_sqnr=300.0)
    assert (found.verdict, found.certain, found.measured) == ("holds", True, None)


def test_an_end_that_is_no_number_is_infinite():
    figure = msgspec.structs.replace(sqnr(30.0, lo=20.0), hi=None)
    assert not held(figure, min_sqnr=40.0).certain
    assert held(figure, min_sqnr=15.0).certain


def test_the_size_is_held_as_a_part_of_the_float_size():
    figure = size(300, reference=1000)
    assert held(figure, max_size_ratio=0.3).verdict == "holds"
    assert held(figure, max_size_ratio=0.299).verdict == "missed"


def test_a_speed_up_within_its_spread_is_said_to_be_so():
    figure = Figure(
        name="speedup",
        title="speed-up",
        unit="factor",
        higher_is_better=True,
        value=1.19,
        lo=1.1,
        hi=1.28,
    )
    found = held(figure, min_speedup=1.2)
    assert found.verdict == "missed"
    assert (
        found.remark == "within the spread of the measurement (1.10..1.28x); give it more --seconds"
    )
    assert held(figure, "pass", min_speedup=1.2).verdict == "holds"
    assert held(figure, "pass", min_speedup=1.3).verdict == "missed"


def test_a_figure_whose_float_value_is_infinite_has_no_drop():
    with pytest.raises(ConfigError, match="hold it with --min-sqnr"):
        hold([sqnr(20.0)], ["sqnr"], Thresholds(max_drop=Drop(1.0)), noise="fail", confidence=0.9)


# -- how many samples -------------------------------------------------------------------------


@given(
    units=st.integers(2, 5000),
    share_=st.floats(0.05, 0.95),
    distance=st.floats(0.005, 0.5),
)
def test_so_many_samples_bring_the_normal_interval_to_the_limit(units, share_, distance):
    deviation = 1.96 * math.sqrt(share_ * (1 - share_))
    needed = samples_needed(units, distance, deviation / math.sqrt(units))
    exact = (deviation / distance) ** 2
    assert needed >= exact * (1 - 1e-9)
    # two significant digits, rounded up: 10 becomes 11 at most
    assert needed <= max(exact * 1.1, math.ceil(exact)) * (1 + 1e-9)


def test_no_number_of_samples_tells_what_is_at_the_limit():
    assert samples_needed(100, 0.0, 0.1) is None
    assert samples_needed(100, 1e-9, 0.1) is None
    assert samples_needed(100, 0.1, math.inf) is None
