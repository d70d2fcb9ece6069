"""Ranges of least L_p error, against brute force over the values themselves."""

import numpy as np
import pytest

from ptq.calib import solver
from ptq.calib.squared_error import SquaredError
from ptq.numerics.affine import fake_quantize, qparams_from_range
from ptq.numerics.qtype import UINT4, UINT8
from ptq.stats.base import TensorStats

#: Two names of one method.
MSE = [("mse", {}), ("lp", {"norm": 2.0})]


def values(seed=0):
    return np.random.default_rng(seed).laplace(size=20_000).astype(np.float32)


def error(x, lo, hi, qtype, norm):
    params = qparams_from_range(np.float64(lo), np.float64(hi), qtype, symmetric=False)
    return float(np.sum(np.abs(x.astype(np.float64) - fake_quantize(x, params)) ** norm))


@pytest.mark.parametrize("norm", [1.0, 2.4, 3.0, 4.0])
def test_the_error_is_that_of_the_values(norm):
    x = values()
    error_of = SquaredError.of(TensorStats.of(x))
    for bound in (2.0, 5.0, 9.0):
        scale = bound / 128
        found = error_of(np.array([scale]), np.array([-128]), np.array([127]), norm=norm)[0]
        quantized = scale * np.clip(np.rint(x / scale), -128, 127)
        wanted = np.sum(np.abs(x.astype(np.float64) - quantized) ** norm)
        # bins of at most an eighth of a step
        assert found * 2.0 ** (norm * error_of.exponent) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("norm", [1.5, 2.4, 4.0])
@pytest.mark.parametrize("qtype", [UINT4, UINT8])
def test_no_range_of_a_grid_has_a_smaller_error(norm, qtype):
    x = values()
    found = solver("lp", norm=norm).solve(TensorStats.of(x), qtype, symmetric=False)
    shrinks = np.linspace(0.1, 1, 40)
    least = min(error(x, a * x.min(), b * x.max(), qtype, norm) for a in shrinks for b in shrinks)
    # both ends, then each by itself: beside the optimum of both by little
    assert error(x, found.lo, found.hi, qtype, norm) <= 1.03 * least


def test_a_norm_of_2_is_mse():
    stats = TensorStats.of(values())
    found = [solver(n, **o).solve(stats, UINT8, symmetric=True) for n, o in MSE]
    assert found[0] == found[1]


def test_the_larger_the_norm_the_less_is_clipped():
    stats = TensorStats.of(values())
    found = [solver("lp", norm=n).solve(stats, UINT4, symmetric=False) for n in (1.0, 2.0, 4.0)]
    widths = [r.hi - r.lo for r in found]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


@pytest.mark.parametrize(("factor", "expected"), [(0.5, 0.5), (8.0, None)])
def test_a_factor_moves_both_ends_within_the_data(factor, expected):
    stats = TensorStats.of(values())
    plain = solver("lp").solve(stats, UINT8, symmetric=False)
    found = solver("lp", factor=factor).solve(stats, UINT8, symmetric=False)
    if expected is None:
        assert (found.lo, found.hi) == (stats.minmax.lo, stats.minmax.hi)
    else:
        assert (found.lo, found.hi) == (expected * plain.lo, expected * plain.hi)
