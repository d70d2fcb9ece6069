"""Intervals against scipy, published examples, and what they promise: coverage."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ptq.numerics import confidence
from ptq.numerics.confidence import newcombe_paired, paired_bootstrap, wilson

CELLS = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def units(values):
    return np.stack([values, np.ones(len(values))], axis=1)


# -- Wilson --------------------------------------------------------------------------------------


@given(units=st.integers(1, 5000), data=st.data(), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_what_scipy_computes(units, data, level):
    right = data.draw(st.integers(0, units))
    expected = stats.binomtest(right, units).proportion_ci(level, method="wilson")
    # both take some ten operations in float64
    np.testing.assert_allclose(wilson(right, units, level), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("right", "units", "lo", "hi"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_examples(right, units, lo, hi):
    """Newcombe, Statistics in Medicine 17, 857-872, table I, method 3."""
    assert wilson(right, units) == pytest.approx((lo, hi), abs=5e-5)


# -- paired proportions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "lo", "hi", "digits"),
    [
        # Altman et al., Statistics with Confidence, 2000, table 6.2
        ((14, 5, 0, 22), 0.011, 0.226, 3),
        # Cavo et al. 2012, in Fagerland et al., Statistical Analysis of Contingency Tables, 2017
        ((59, 6, 16, 80), -0.1186, -0.0046, 4),
    ],
)
def test_newcombe_gives_the_published_examples(cells, lo, hi, digits):
    assert newcombe_paired(*cells) == pytest.approx((lo, hi), abs=0.51 * 10**-digits)


@given(cells=CELLS)
def test_newcombe_holds_the_difference_and_turns_with_the_models(cells):
    both, only_a, only_b, neither = cells
    lo, hi = newcombe_paired(*cells)
    difference = (only_a - only_b) / sum(cells)
    assert -1 - 1e-9 <= lo <= difference + 1e-9
    assert difference - 1e-9 <= hi <= 1 + 1e-9
    assert newcombe_paired(both, only_b, only_a, neither) == pytest.approx((-hi, -lo))


def test_newcombe_without_correlation_is_square_and_add_of_wilson():
    both, only_a, only_b, neither = 20, 20, 30, 30  # independent: 20 * 30 - 20 * 30 = 0
    (la, ua), (lb, ub) = wilson(40, 100), wilson(50, 100)
    below, above = math.hypot(0.4 - la, ub - 0.5), math.hypot(ua - 0.4, 0.5 - lb)
    expected = (-0.1 - below, -0.1 + above)
    assert newcombe_paired(both, only_a, only_b, neither) == pytest.approx(expected)


# -- bootstrap -----------------------------------------------------------------------------------


def test_bootstrap_is_the_paired_percentile_bootstrap_of_scipy():
    rng = np.random.default_rng(0)
    a = rng.gamma(2, size=80)
    b = a + rng.normal(0.1, 0.2, size=80)
    found = paired_bootstrap(units(a), units(b), mean, 0.9, 20000, np.random.default_rng(1))

    def scipy(statistic, *data):
        options = {"confidence_level": 0.9, "method": "percentile", "n_resamples": 20000}
        result = stats.bootstrap(data, statistic, paired=True, rng=2, **options)
        return result.confidence_interval

    # a percentile of 20000 resamples has a standard error of about 0.017 standard deviations
    for got, expected, spread in (
        (found.a, scipy(np.mean, a), a.std()),
        (found.b, scipy(np.mean, b), b.std()),
        (
            found.difference,
            scipy(lambda x, y, axis: np.mean(x, axis) - np.mean(y, axis), a, b),
            (a - b).std(),
        ),
    ):
        assert got == pytest.approx(tuple(expected), abs=0.1 * spread / math.sqrt(80))


def test_bootstrap_draws_both_models_together():
    values = units(np.random.default_rng(0).normal(size=30))
    found = paired_bootstrap(values, values, mean, 0.95, 200, np.random.default_rng(0))
    assert found.difference == (0, 0)
    assert found.a == found.b
    assert found.a[0] < found.a[1]


def test_bootstrap_in_pieces_is_as_good_as_at_once(monkeypatch):
    a = np.random.default_rng(0).exponential(size=40)
    at_once = paired_bootstrap(units(a), units(-a), mean, 0.95, 4000, np.random.default_rng(0))
    monkeypatch.setattr(confidence, "_DRAWN", 200)  # five resamples at a time
    pieces = paired_bootstrap(units(a), units(-a), mean, 0.95, 4000, np.random.default_rng(0))
    # other draws: a percentile of 4000 has a standard error of 0.04 standard deviations
    assert pieces.a == pytest.approx(at_once.a, abs=0.25 * a.std() / math.sqrt(40))


def test_bootstrap_of_figures_that_can_be_infinite_or_missing():
    def infinite(sums):  # infinite if a resample has no noise, as an SQNR
        with np.errstate(divide="ignore"):
            return 1 / sums[..., 0]

    noise = units(np.array([1.0, 0.0, 0.0]))  # a resample misses the first with (2/3)^3 = 0.3
    found = paired_bootstrap(noise, noise, infinite, 0.95, 500, np.random.default_rng(0))
    assert found.a == (1 / 3, math.inf)
    # infinity minus infinity is no difference, and what is left is equal
    assert found.difference == (0, 0)
    nothing = paired_bootstrap(
        noise, noise, lambda sums: np.full(len(sums), np.nan), 0.95, 9, np.random.default_rng(0)
    )
    assert all(map(math.isnan, nothing.a))


# -- coverage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("both", "only_a", "only_b"), [(0.9, 0.02, 0.02), (0.75, 0.05, 0.03), (0.5, 0.1, 0.2)]
)
def test_newcombe_covers_the_true_difference_as_often_as_it_says(both, only_a, only_b):
    rng = np.random.default_rng(5)
    drawn = rng.multinomial(200, [both, only_a, only_b, 1 - both - only_a - only_b], size=3000)
    ends = np.array([newcombe_paired(*map(int, cells)) for cells in drawn])
    inside = (ends[:, 0] <= only_a - only_b) & (only_a - only_b <= ends[:, 1])
    # standard error of the simulation: 0.004; Newcombe's table V has 0.93 to 0.98 for method 10
    assert 0.935 <= inside.mean() <= 0.98


def test_bootstrap_covers_the_true_ratio_nearly_as_often_as_it_says():
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(400):
        lengths = rng.integers(5, 30, size=60)
        errors = rng.binomial(lengths, 0.1)
        sums = np.stack([errors, lengths], axis=1).astype(float)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = paired_bootstrap(sums, sums, mean, 0.95, 400, rng)
        inside += found.a[0] <= 0.1 <= found.a[1]
    # of 60 units it falls short by about 0.01; standard error of the simulation: 0.011
    assert 0.90 <= inside / 400 <= 0.98
