"""Verdicts on tables of times, and how they are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.evaluate.latency import (
    BLOCKS,
    _summarize,
    _turned,
    measure_latencies,
    measure_latency,
)


def table(reference, quantized, control, rounds=50):
    """Times in ms; a number stands for the same time in every round."""
    columns = [
        np.broadcast_to(np.asarray(c, float), rounds) for c in (reference, quantized, control)
    ]
    return np.stack(columns, axis=1)


def summarize(times, threads=1):
    """The result for a float and a quantized model."""
    return _summarize(times, threads).versus(1)


def noisy(scale, seed=0, spread=0.05, rounds=50):
    return scale * np.exp(np.random.default_rng(seed).normal(0, spread, rounds))


@pytest.mark.parametrize(
    ("quantized", "verdict", "speedup"),
    [(5, "faster", 2), (20, "slower", 0.5), (10, "no difference", 1)],
)
def test_without_noise_any_difference_counts(quantized, verdict, speedup):
    found = summarize(table(10, quantized, 10), threads=1)
    assert found.verdict == verdict
    assert (found.speedup, found.speedup_p10) == pytest.approx((speedup, speedup))
    assert (found.control, found.spread) == (1, 1)


@pytest.mark.parametrize(
    ("quantized", "verdict"),
    [
        (9.9, "no difference"),
        (8.4, "no difference"),
        (12.4, "no difference"),
        (6, "faster"),
        (16, "slower"),
    ],
)
def test_a_difference_that_the_control_shows_too_does_not(quantized, verdict):
    # the machine gets 25 % slower for the second half of the float rounds only
    drift = np.where(np.arange(50) < 25, 10, 12.5)
    found = summarize(table(10, quantized, drift), threads=1)
    assert found.spread == pytest.approx(1.25)
    assert found.verdict == verdict


def test_the_control_strays_alike_to_either_side():
    slow, fast = (summarize(table(10, 8, c), threads=1) for c in (12.5, 8.0))
    assert slow.spread == pytest.approx(1.25)
    assert fast.spread == pytest.approx(1.25)
    assert (slow.control, fast.control) == pytest.approx((0.8, 1.25))


def test_a_single_outlier_changes_nothing():
    times = table(noisy(10), noisy(5, 1), noisy(10, 2))
    with_outlier = times.copy()
    with_outlier[7, 1] = 1000
    plain, found = summarize(times, threads=1), summarize(with_outlier, threads=1)
    assert found.verdict == plain.verdict == "faster"
    assert found.speedup == pytest.approx(plain.speedup, rel=0.02)


@given(
    speed=st.floats(0.2, 5),
    factor=st.floats(1e-3, 1e3),
    spread=st.floats(0, 0.3),
    seed=st.integers(0, 99),
)
def test_the_verdict_does_not_depend_on_the_unit_of_time(speed, factor, spread, seed):
    times = table(
        noisy(10, seed, spread), noisy(10 / speed, seed + 1, spread), noisy(10, seed + 2, spread)
    )
    a, b = summarize(times, threads=2), summarize(times * factor, threads=2)
    assert a.verdict == b.verdict
    assert (a.speedup, a.control, a.spread) == pytest.approx((b.speedup, b.control, b.spread))
    assert a.spread >= 1
    assert a.threads == 2


def test_quantiles_are_those_of_the_rounds():
    times = table(np.arange(1, 51), np.arange(1, 51) / 2, np.arange(1, 51))
    found = summarize(times, threads=1)
    assert (
        found.reference.p10_ms,
        found.reference.median_ms,
        found.reference.p90_ms,
    ) == pytest.approx((5.9, 25.5, 45.1))
    assert found.quantized.median_ms == pytest.approx(12.75)
    assert found.rounds == 50


def test_a_slow_stretch_that_hits_both_models_changes_nothing():
    # half of the time the machine is half as fast; the medians alone would depend on which half
    # each median fell into
    load = np.where(np.random.default_rng(0).random(50) < 0.5, 1, 2)
    found = summarize(table(10 * load, 8 * load, 10 * load))
    assert (found.speedup, found.control, found.spread) == pytest.approx((1.25, 1, 1))
    assert found.verdict == "faster"


def test_a_speedup_that_strays_itself_is_no_difference():
    # load that the control does not show: it slows the quantized model in some blocks only
    found = summarize(table(10, np.where(np.arange(50) < 30, 9.5, 10.5), 10))
    assert found.control == 1
    assert found.spread == pytest.approx(10.5 / 9.5)
    assert found.verdict == "no difference"


@given(
    count=st.integers(1, 4),
    seed=st.integers(0, 99),
    factors=st.lists(st.floats(0.2, 5), min_size=4, max_size=4),
)
def test_a_model_is_judged_the_same_whatever_it_is_compared_with(count, seed, factors):
    columns = [noisy(10 * f, seed + i) for i, f in enumerate([1, *factors[:count]])]
    control = noisy(10, seed + 99)
    together = _summarize(np.stack([*columns, control], axis=1), threads=1)
    assert together.speedups[0].median == 1
    assert together.speedups[0].verdict == "no difference"
    assert len(together.timings) == len(together.speedups) == count + 1
    for i in range(1, count + 1):
        alone = _summarize(np.stack([columns[0], columns[i], control], axis=1), threads=1)
        assert together.versus(i) == alone.versus(1)
        assert together.speedups[i] == alone.speedups[1]


def test_turning_a_comparison_around_turns_its_result_around():
    a, b = noisy(10), noisy(7, 1)
    found, turned = (summarize(np.stack([x, y, x], axis=1)) for x, y in ((a, b), (b, a)))
    assert found.speedup * turned.speedup == pytest.approx(1)
    assert found.spread == pytest.approx(turned.spread)
    assert (found.verdict, turned.verdict) == ("faster", "slower")


class Sessions:
    """Opens sessions that record which model ran, and in which session."""

    def __init__(self):
        self.opened = []
        self.ran = []

    def opener(self, model):
        def open_model():
            session = Recorded(self, model, len(self.opened))
            self.opened.append(model)
            return session

        return open_model


class Recorded:
    def __init__(self, sessions, model, number):
        self.sessions, self.model, self.number = sessions, model, number

    def run(self, outputs, feed):
        assert outputs is None
        self.sessions.ran.append((self.model, self.number))


def test_rounds_are_interleaved_and_every_model_comes_first_at_times():
    sessions = Sessions()
    openers = [sessions.opener(name) for name in "ABC"]
    blocks = []
    found = measure_latencies(
        openers, {}, threads=2, seconds=0.0, on_block=lambda: blocks.append(len(sessions.ran))
    )
    assert sessions.opened == ["A", "B", "C", "A"], "a control has a session of its own"
    assert len(blocks) == BLOCKS
    measured = sessions.ran[3 * 4 + 4 :]  # after warming up and a look at how long a run takes
    rounds = [measured[i : i + 4] for i in range(0, len(measured), 4)]
    assert len(rounds) == found.rounds
    assert all({number for _, number in r} == {0, 1, 2, 3} for r in rounds)
    assert {r[0][1] for r in rounds} == {0, 1, 2, 3}
    assert found.threads == 2


def test_blocks_have_sessions_of_their_own_unless_opening_takes_too_long():
    quick = Sessions()
    measure_latencies([quick.opener("A"), quick.opener("B")], {}, threads=1, seconds=0.1)
    assert len(quick.opened) == 3 * BLOCKS
    assert [quick.opened[i : i + 3] for i in range(0, 9, 3)] == [
        ["A", "B", "A"],
        ["B", "A", "A"],
        ["A", "A", "B"],
    ]
    slow = Sessions()
    measure_latencies([slow.opener("A"), slow.opener("B")], {}, threads=1, seconds=1e-6)
    assert slow.opened == ["A", "B", "A"]


@given(st.integers(1, 9), st.integers(0, 20))
def test_a_turn_leaves_nobody_out(count, turn):
    assert sorted(_turned(count, turn)) == list(range(count))


class Idle:
    def run(self, outputs, feed):
        pass


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 15), (1e9, 10_000)])
def test_the_number_of_rounds_is_bounded(seconds, rounds):
    assert measure_latency(Idle, Idle, {}, threads=1, seconds=seconds).rounds == rounds
