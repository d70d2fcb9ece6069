"""Moments of clipped normal variables: published values, and numerical integration."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr

from ptq.numerics.normal import clipped_moments, standard_quantiles

INF = np.inf


def integrated(function, mean, std):
    """Return E[function(x)] of a normal x."""

    def weighted(z):
        return function(mean + std * z) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)

    # a corner every deviation: the integrand is smooth but for the bounds
    return sum(quad(weighted, a, a + 0.5, epsabs=1e-12)[0] for a in np.arange(-9, 9, 0.5))


@pytest.mark.parametrize(
    ("mean", "std", "bounds", "wanted"),
    [
        (0, 1, (0, INF), 0.398942),
        (1, 2, (0, INF), 1.395593),
        (1, 2, (0, 6), 1.391585),
        (3, 2, (0, 6), 3.0),
    ],
)
def test_means_are_those_of_the_formula_of_dfq(mean, std, bounds, wanted):
    # ALGORITHMS E5, given to six digits
    found, _ = clipped_moments(np.array([mean]), np.array([std]), *bounds)
    assert found[0] == pytest.approx(wanted, abs=5e-7)


@pytest.mark.parametrize("bounds", [(0, INF), (0, 6), (-1, 1), (-INF, INF), (-INF, 2.5)])
def test_moments_are_those_of_integration(bounds):
    means, stds = np.array([-3.0, 0.0, 0.4, 5.0]), np.array([0.5, 1.0, 3.0, 2.0])
    mean, std = clipped_moments(means, stds, *bounds)
    for i, (m, s) in enumerate(zip(means, stds, strict=True)):
        first = integrated(lambda x: np.clip(x, *bounds), m, s)
        second = integrated(lambda x: np.clip(x, *bounds) ** 2, m, s)
        # quadrature over corners is good to some 1e-7
        assert mean[i] == pytest.approx(first, abs=1e-6)
        assert std[i] ** 2 == pytest.approx(second - first**2, abs=1e-5)


def test_a_constant_channel_is_clipped_and_does_not_vary():
    mean, std = clipped_moments(np.array([-1.0, 2.0, 9.0]), np.zeros(3), 0, 6)
    np.testing.assert_array_equal(mean, [0, 2, 6])
    np.testing.assert_array_equal(std, [0, 0, 0])


def test_quantiles_cut_the_distribution_into_equal_parts():
    found = standard_quantiles(101)
    np.testing.assert_allclose(ndtr(found), (np.arange(101) + 0.5) / 101, rtol=1e-12)
    assert found[50] == 0
