"""The speed guard: what is written, kept or refused."""

import pytest

from ptq.errors import ThresholdError
from ptq.evaluate.latency import Latency, Timing
from ptq.options import RunOptions
from ptq.place.costs import Costs
from ptq.place.cut import Block
from ptq.speed import SpeedGuard, layers_at_fault


def latency(speedup, spread=1.05):
    one = Timing(1.0, 1.0, 1.0)
    return Latency(one, one, speedup, 1.0, spread, rounds=15, threads=1)


def guard(measured=False, **options):
    return SpeedGuard.of(RunOptions(**options), measured=measured)


def test_a_faster_result_passes():
    assert not guard(measured=True, on_slower="fail").keeps_float(latency(1.5), ())
    assert not guard(min_speedup=1.4).keeps_float(latency(1.5), ())


def test_a_difference_within_the_spread_is_none():
    assert not guard(on_slower="fail").doubts(latency(0.97))
    assert not guard(on_slower="fail").keeps_float(latency(0.97), ())


def test_where_costs_decide_a_slower_result_gives_way_to_the_float_model():
    assert guard(measured=True).keeps_float(latency(0.5), ())


def test_what_the_user_asked_for_is_written_and_said():
    assert not guard(measured=False).keeps_float(latency(0.5), ())
    assert guard(measured=False).doubts(latency(0.5))
    assert not guard(measured=True, on_slower="write").keeps_float(latency(0.5), ())
    assert guard(measured=False, on_slower="keep-float").keeps_float(latency(0.5), ())


def test_a_slower_result_fails_if_it_is_to_and_names_the_layers():
    with pytest.raises(ThresholdError, match=r"2\.00x slower .* at fault: conv1, conv2; --on-slow"):
        guard(on_slower="fail").keeps_float(latency(0.5), ("conv1", "conv2"))


def test_who_sets_a_threshold_gets_no_float_model_for_an_answer():
    assert guard(measured=True).gives_way
    assert not guard(measured=True, min_speedup=0.5).gives_way
    assert not guard(measured=True, on_slower="write").gives_way
    assert not guard(measured=False).gives_way


def test_a_missed_threshold_is_an_error_of_its_own_exit_code():
    with pytest.raises(ThresholdError, match=r"1\.50x as fast .* asks for 2x") as caught:
        guard(measured=True, min_speedup=2.0).keeps_float(latency(1.5), ())
    assert caught.value.exit_code == 3


def test_the_layers_at_fault_are_the_ones_that_lose_most():
    rows = [Block(f"b{i}", 1.0, 1.0 + (i - 2) / 10, (), ()) for i in range(12)]
    found = layers_at_fault(Costs(tuple(rows), {}, {}, frozenset(), 0.0))
    assert [name.split()[0] for name in found] == ["b11", "b10", "b9", "b8", "b7"]
    assert layers_at_fault(Costs(tuple(rows[:2]), {}, {}, frozenset(), 0.0)) == ()
