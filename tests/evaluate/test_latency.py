"""Verdicts on tables of times, and how they are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.evaluate.latency import _summarize, measure_latency


def table(reference, quantized, control, rounds=50):
    """Times in ms; a number stands for the same time in every round."""
    columns = [
        np.broadcast_to(np.asarray(c, float), rounds) for c in (reference, quantized, control)
    ]
    return np.stack(columns, axis=1)


def noisy(scale, seed=0, spread=0.05, rounds=50):
    return scale * np.exp(np.random.default_rng(seed).normal(0, spread, rounds))


@pytest.mark.parametrize(
    ("quantized", "verdict", "speedup"),
    [(5, "faster", 2), (20, "slower", 0.5), (10, "no difference", 1)],
)
def test_without_noise_any_difference_counts(quantized, verdict, speedup):
    found = _summarize(table(10, quantized, 10), threads=1)
    assert (found.verdict, found.speedup) == (verdict, speedup)
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
    found = _summarize(table(10, quantized, drift), threads=1)
    assert found.spread == pytest.approx(1.25)
    assert found.verdict == verdict


def test_the_control_strays_alike_to_either_side():
    slow, fast = (_summarize(table(10, 8, c), threads=1) for c in (12.5, 8.0))
    assert slow.spread == pytest.approx(1.25)
    assert fast.spread == pytest.approx(1.25)
    assert (slow.control, fast.control) == pytest.approx((0.8, 1.25))


def test_a_single_outlier_changes_nothing():
    times = table(noisy(10), noisy(5, 1), noisy(10, 2))
    with_outlier = times.copy()
    with_outlier[7, 1] = 1000
    plain, found = _summarize(times, threads=1), _summarize(with_outlier, threads=1)
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
    a, b = _summarize(times, threads=2), _summarize(times * factor, threads=2)
    assert a.verdict == b.verdict
    assert (a.speedup, a.control, a.spread) == pytest.approx((b.speedup, b.control, b.spread))
    assert a.spread >= 1
    assert a.threads == 2


def test_quantiles_are_those_of_the_rounds():
    times = table(np.arange(1, 51), np.arange(1, 51) / 2, np.arange(1, 51))
    found = _summarize(times, threads=1)
    assert (
        found.reference.p10_ms,
        found.reference.median_ms,
        found.reference.p90_ms,
    ) == pytest.approx((5.9, 25.5, 45.1))
    assert found.quantized.median_ms == pytest.approx(12.75)
    assert found.rounds == 50


def test_rounds_are_interleaved_and_no_model_always_runs_after_the_same_other():
    order = []

    class Counting:
        def __init__(self, name):
            self.name = name

        def run(self, outputs, feed):
            assert outputs is None
            order.append(self.name)

    opened = iter("ACB")  # float, quantized, float again

    def opener():
        return Counting(next(opened))

    found = measure_latency(opener, opener, {}, threads=1, seconds=0.0)
    measured = order[3 * 3 + 3 :]
    rounds = [tuple(measured[i : i + 3]) for i in range(0, len(measured), 3)]
    assert len(rounds) == found.rounds
    assert found.rounds % 5 == 0
    assert all(sorted(r) == ["A", "B", "C"] for r in rounds)
    assert {r[0] for r in rounds} == {"A", "B", "C"}


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.0, 15, 15), (1e9, 200, 200)])
def test_the_number_of_rounds_is_bounded(seconds, least, most):
    class Idle:
        def run(self, outputs, feed):
            pass

    found = measure_latency(Idle, Idle, {}, threads=1, seconds=seconds)
    assert least <= found.rounds <= most
