import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.calib.squared_error import SquaredError
from ptq.stats.base import TensorStats


def on_grid(x, scale, least, most):
    return scale * np.clip(np.rint(x / scale), least, most)


def error_of(stats, scale, least, most):
    error = SquaredError.of(stats)
    found = error(np.array([scale]), np.array([least]), np.array([most]))
    return float(np.ldexp(found[0], 2 * error.exponent))


@given(st.integers(0, 99), st.floats(0.005, 2), st.integers(-140, 0), st.integers(0, 140))
def test_it_is_the_integral_over_values_spread_evenly_in_their_bins(seed, scale, least, most):
    x = np.random.default_rng(seed).uniform(-3, 7, 12).astype(np.float32)
    stats = TensorStats.of(x)
    hist = stats.hist
    while hist.counts.size > 4096:
        hist = hist.coarsened(hist.exponent + 1)
    left, right = hist.edges()[:-1], hist.edges()[1:]
    left, right = np.maximum(left, x.min()), np.minimum(right, x.max())
    inside = (np.arange(1000) + 0.5) / 1000
    values = left[:, None] + (right - left)[:, None] * inside
    squares = (values - on_grid(values, scale, least, most)) ** 2
    # The midpoint rule with 1000 points errs by about 1e-6 of the square of a bin, or at a code
    # that changes inside the bin by 1e-3 of the slope of the square there, at most a step.
    slack = 12 * (hist.width**2 * 1e-5 + hist.width * 1e-3 * scale)
    assert error_of(stats, scale, least, most) == pytest.approx(
        float(hist.counts @ squares.mean(axis=1)), abs=slack, rel=1e-3
    )


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_it_is_close_to_the_error_of_the_values(bits):
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    half = 2 ** (bits - 1)
    for bound in (1.0, 2.5, 4.0):
        scale = bound / half
        wanted = np.sum((x - on_grid(x.astype(float), scale, -half, half - 1)) ** 2)
        # Bins of at most an eighth of a step.
        assert error_of(TensorStats.of(x), scale, -half, half - 1) == pytest.approx(
            wanted, rel=0.01
        )


def test_it_is_a_twelfth_of_the_step_where_bins_are_wider_than_steps():
    x = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32)
    scale = 1 / 32768
    found = error_of(TensorStats.of(x), scale, -32768, 32767)
    assert found == pytest.approx(x.size * scale**2 / 12, rel=0.01)


def test_values_at_the_largest_are_exact():
    # Of ReLU6, many; in their bin they would be spread over more than 6.
    x = np.array([0, 0, 6, 6, 6, 6], np.float32)
    stats = TensorStats.of(x)
    assert error_of(stats, 6 / 255, 0, 255) == pytest.approx(0, abs=1e-9)
    assert error_of(stats, 5 / 255, 0, 255) == pytest.approx(4, rel=1e-5)
    # The smallest is at the inner end of its bin: half a bin of 1/6144 of 6 away.
    assert error_of(TensorStats.of(-x), 5 / 255, -255, 0) == pytest.approx(4, rel=2e-3)


def test_zeros_have_no_error():
    x = np.random.default_rng(0).uniform(-1, 1, 100).astype(np.float32)
    more = np.append(x, np.zeros(1000, np.float32))
    assert error_of(TensorStats.of(x), 0.1, -8, 7) == error_of(TensorStats.of(more), 0.1, -8, 7)


def test_an_extreme_that_is_in_no_bin_counts_as_one_value():
    x = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    whole = TensorStats.of(np.append(x, np.float32(9)))
    sampled = TensorStats(whole.minmax, whole.ema, TensorStats.of(x[:100]).hist)
    inside = error_of(TensorStats.of(x[:100]), 0.01, -128, 127)
    # 100 values stand for 1001, so one that was seen weighs 0.1 of theirs.
    assert error_of(sampled, 0.01, -128, 127) == pytest.approx(
        inside + (9 - 1.27) ** 2 * 100 / 1001, rel=1e-5
    )
