"""HWGQ: steps against the paper's, Max's table and integration; ranges of samples."""

import numpy as np
import pytest
from scipy import integrate
from scipy.stats import halfnorm, norm

from ptq.calib import parse_method, solver
from ptq.calib.normal_steps import half_error, half_step, whole_step
from ptq.numerics.qtype import INT4, UINT2, UINT4, QType
from ptq.stats.base import TensorStats


@pytest.mark.parametrize(("bits", "step"), [(1, 0.7979), (2, 0.538), (3, 0.3217), (4, 0.1842)])
def test_the_step_of_the_rule_of_the_paper(bits, step):
    # 0.538 is what the authors' networks have, cut off after three digits
    assert half_step(2**bits - 1, zero=False) == pytest.approx(step, abs=1e-3)


@pytest.mark.parametrize(
    ("levels", "step"),
    [(1, 1.2240), (3, 0.6508), (7, 0.3534), (15, 0.1933), (31, 0.1055), (127, 0.0309)],
)
def test_the_step_to_the_nearest_is_that_of_a_grid_with_zero_in_the_middle(levels, step):
    assert half_step(levels, zero=True) == pytest.approx(step, abs=1e-4)


@pytest.mark.parametrize(
    ("bits", "step", "sqnr_db"),
    [(2, 0.9957, 9.25), (3, 0.5860, 14.27), (4, 0.3352, 19.38), (5, 0.1881, 24.57),
     (6, 0.1041, 29.83), (8, 0.0308, 40.57)],
)  # fmt: skip
def test_the_step_around_the_mean_is_that_of_max(bits, step, sqnr_db):
    found = whole_step(2**bits)
    assert found == pytest.approx(step, abs=1e-4)

    def squared(x):
        code = np.clip(np.floor(x / found), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return (x - found * (code + 0.5)) ** 2 * norm.pdf(x)

    x = np.linspace(-9, 9, 200_001)
    error = integrate.trapezoid(squared(x), x)
    assert -10 * np.log10(error) == pytest.approx(sqnr_db, abs=0.006)


@pytest.mark.parametrize(("zero", "error"), [(True, 0.0469), (False, 0.0864)])
def test_the_error_at_two_bits_is_that_of_the_integral(zero, error):
    step = half_step(3, zero=zero)
    found = half_error(step, 3, zero=zero)
    assert found == pytest.approx(error, abs=5e-5)
    x = np.linspace(0, 9, 200_001)
    quantized = step * np.clip(np.rint(x / step), 0 if zero else 1, 3)
    assert found == pytest.approx(
        integrate.trapezoid((x - quantized) ** 2 * halfnorm.pdf(x), x), rel=1e-4
    )


def sample(size=100_000):
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
def test_zeros_do_not_count_for_the_deviation(sign):
    x = 2.5 * np.maximum(sample(), 0)
    found = solver("hwgq").solve(TensorStats.of(sign * x), UINT2, symmetric=False)
    # the deviation of 50,000 values is known to about 0.3 %
    assert found.max_abs == pytest.approx(2.5 * 3 * 0.6508, rel=0.01)


def test_half_of_a_symmetric_grid_is_lost_on_a_tensor_of_one_sign():
    stats = TensorStats.of(np.maximum(sample(), 0))
    found = solver("hwgq").solve(stats, INT4, symmetric=True)
    assert found == solver("hwgq").solve(stats, QType(3, signed=False), symmetric=False)


def test_a_tensor_of_both_signs_has_the_grid_of_max_around_its_mean():
    found = solver("hwgq").solve(TensorStats.of(2 * sample() + 1), UINT4, symmetric=False)
    reach = 2 * 0.3352 * 7.5
    np.testing.assert_allclose((found.lo, found.hi), (1 - reach, 1 + reach), rtol=0.02)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_rule_of_the_paper_leaves_nothing_but_zero_at_zero(sign):
    x = sign * np.maximum(sample(), 0).astype(np.float64)
    method = parse_method("hwgq:rule=paper")
    found = method.levels(TensorStats.of(x), UINT2, symmetric=False)
    sigma = np.sqrt(np.mean(x[x != 0] ** 2))
    steps = np.abs(found(x)) / sigma
    np.testing.assert_array_equal(steps == 0, x == 0)
    # moments are those of the middles of bins
    np.testing.assert_allclose(np.unique(steps), 0.5388 * np.arange(4), rtol=1e-3)
    assert np.mean((x - found(x)) ** 2) / sigma**2 == pytest.approx(0.0864 / 2, rel=0.02)


def test_the_rule_of_the_paper_is_not_for_both_signs():
    stats = TensorStats.of(sample())
    assert parse_method("hwgq:rule=paper").levels(stats, UINT2, symmetric=False) is None
