"""Distributions of channels: what functions, sums and averages make of them."""

import numpy as np
import pytest

from ptq.numerics.marginal import REACH, Marginal, Normal

CHANNELS = Normal(np.array([0.0, 1.0, -2.0, 3.0]), np.array([1.0, 2.0, 0.5, 0.0]))


def drawn(normal=CHANNELS, count=400_000, seed=0):
    rng = np.random.default_rng(seed)
    return normal.mean[:, None] + normal.std[:, None] * rng.standard_normal((4, count))


def test_a_function_gives_the_moments_of_what_it_makes_of_each_value():
    def hard_swish(x):
        return x * np.clip(x / 6 + 0.5, 0, 1)

    found = Marginal.of(CHANNELS).map(hard_swish)
    sampled = hard_swish(drawn())
    # five standard errors of 400 000 draws of deviation 2 or less
    np.testing.assert_allclose(found.mean, sampled.mean(axis=1), atol=5 * 2 / 630)
    np.testing.assert_allclose(found.std, sampled.std(axis=1), atol=0.02)
    assert not found.normal


def test_clipping_has_exact_moments_and_ends_at_its_bounds():
    found = Marginal.of(CHANNELS).clipped(0, 6)
    sampled = np.clip(drawn(), 0, 6)
    np.testing.assert_allclose(found.mean, sampled.mean(axis=1), atol=5 * 2 / 630)
    np.testing.assert_allclose(found.ends[0], [0, REACH])
    np.testing.assert_allclose(found.ends[1], [0, 6])
    np.testing.assert_allclose(found.ends[3], [3, 3])


def test_of_a_sum_means_and_variances_add_up():
    found = Marginal.of(CHANNELS).plus(Marginal.of(CHANNELS))
    np.testing.assert_allclose(found.mean, 2 * CHANNELS.mean)
    np.testing.assert_allclose(found.std, np.sqrt(2) * CHANNELS.std)


def test_averages_keep_the_mean_and_reach_no_further_than_values():
    values = Marginal.of(CHANNELS).clipped(0, 6)
    found = values.pooled()
    np.testing.assert_array_equal(found.mean, values.mean)
    assert (found.ends[:, 0] >= values.ends[:, 0]).all()
    assert (found.ends[:, 1] <= values.ends[:, 1]).all()
    # half a normal around 0 averages to far less than its largest value
    assert found.ends[0, 1] < 0.7 * values.ends[0, 1]


def test_joined_channels_stand_one_after_the_other():
    found = Marginal.joined([Marginal.of(CHANNELS), Marginal.of(CHANNELS).clipped(0, 6)])
    assert found.points.shape[0] == found.mean.size == 8
    assert not found.normal
    assert found.mean[4] == pytest.approx(0.398942, abs=1e-6)
