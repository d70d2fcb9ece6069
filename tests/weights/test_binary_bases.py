"""Sums of signs: one of them, one after the other, at fixed shifts, and fitted together."""

from itertools import product

import numpy as np
import pytest
from support.levels import VECTORS, WORKED, distributed, relative_error, values_of

from ptq.errors import ConfigError
from ptq.numerics.qtype import QType
from ptq.weights import weight_quantizer


def codebook(text, rows, bits, **options):
    return weight_quantizer(text, **options).codebook(rows, bits)


def test_bwn_of_the_worked_example():
    found = codebook("bwn", WORKED, 1)
    assert found.levels[0, 1] == pytest.approx(VECTORS["bwn"]["alpha"], rel=1e-7)
    mse = np.mean((values_of(found) - WORKED) ** 2)
    assert mse == pytest.approx(VECTORS["bwn"]["mse"], rel=1e-6)


def test_bwn_loses_1_minus_2_over_pi_of_normal_weights():
    error = relative_error(rows := distributed("normal"), codebook("bwn", rows, 1))
    # of quantiles that are cut at 4 deviations
    assert error == pytest.approx(1 - 2 / np.pi, abs=1e-4)
    assert -10 * np.log10(error) == pytest.approx(4.40, abs=0.005)


def test_residual_of_the_worked_example():
    wanted = VECTORS["horq_K3"]
    found = codebook("residual", WORKED, 3)
    signs = np.array(list(product([-1, 1], repeat=3)))
    assert found.levels[0] == pytest.approx(np.sort(signs @ wanted["alphas"]), abs=1e-6)
    mse = np.mean((values_of(found) - WORKED) ** 2)
    assert mse == pytest.approx(wanted["mse"], rel=1e-6)


def test_bases_of_residual_for_normal_weights():
    rows = distributed("normal")
    # by quadrature; each base halves the error or so
    wanted = [0.36338, 0.13045, 0.05839, 0.03290]
    found = [relative_error(rows, codebook("residual", rows, k)) for k in range(1, 5)]
    assert found == pytest.approx(wanted, rel=2e-3)
    # the sum of the bases is the largest level
    largest = [codebook("residual", rows, k).levels[0, -1] for k in range(1, 5)]
    assert np.diff(largest, prepend=0) == pytest.approx([0.7979, 0.4826, 0.2684, 0.1597], abs=2e-4)


def test_abc_of_the_worked_example():
    wanted = VECTORS["abcnet_M3"]
    found = codebook("abc", WORKED, 2)
    low, middle, high = wanted["alphas"]
    # the base with the largest shift is 1 first
    levels = [-low - middle - high, high - middle - low, high + middle - low, high + middle + low]
    assert found.levels[0] == pytest.approx(levels, abs=1e-6)
    mse = np.mean((values_of(found) - WORKED) ** 2)
    assert mse == pytest.approx(wanted["mse"], rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_abc_is_the_least_squares_of_its_bases(count):
    rows = np.random.default_rng(0).laplace(0.2, 1, size=(3, 40)).astype(np.float32)
    found = values_of(codebook("abc", rows, 3, bases=count))
    shifts = np.linspace(-1, 1, count) if count > 1 else [0.0]
    for row, values in zip(rows.astype(np.float64), found, strict=True):
        bases = np.stack([np.where(row - row.mean() + u * row.std() >= 0, 1, -1) for u in shifts])
        alphas = np.linalg.lstsq(bases.T.astype(np.float64), row, rcond=None)[0]
        assert values == pytest.approx(alphas @ bases, abs=1e-9)


def test_abc_of_fewer_weights_than_bases_is_a_fit_as_well():
    # of two different weights, all bases but the extreme ones are the same: B has rank 2 of 15
    rows = np.array([[1.0, 1.0, -3.0]], np.float32)
    assert values_of(codebook("abc", rows, 4)) == pytest.approx(rows, abs=1e-9)


def test_abc_says_how_many_bits_its_bases_take():
    with pytest.raises(ConfigError, match=r"5 bases have 6 levels.*abc:bases=3"):
        codebook("abc", WORKED, 2, bases=5)


@pytest.mark.parametrize(
    ("bits", "error"), [(1, 0.36338), (2, 0.11748), (3, 0.03524), (4, 0.00987), (5, 0.00270)]
)
def test_lq_finds_the_best_bases_of_normal_weights(bits, error):
    # the best of hundreds of starts at random; with 3 bits and more most end higher, at 0.0369,
    # 0.0114 and 0.0035
    rows = distributed("normal")
    assert relative_error(rows, codebook("lq", rows, bits)) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_lq_is_better_than_what_it_starts_from_and_than_even_steps(bits):
    rows = np.random.default_rng(0).standard_t(4, size=(16, 200)).astype(np.float32)
    exact = rows.astype(np.float64)
    ours = np.sum((values_of(codebook("lq", rows, bits)) - exact) ** 2, axis=1)
    greedy = np.sum((values_of(codebook("residual", rows, bits)) - exact) ** 2, axis=1)
    assert np.all(ours < greedy)
    uniform = weight_quantizer("mse").quantize(
        rows, QType(bits, signed=True), axis=0, symmetric=True
    )
    assert ours.sum() < 0.8 * np.sum((uniform.dequantize() - exact) ** 2)


@pytest.mark.parametrize("bits", [2, 3])
def test_lq_is_near_the_best_of_many_bases(bits):
    rows = np.random.default_rng(1).standard_normal((1, 24)).astype(np.float32)
    signs = np.array(list(product([-1, 1], repeat=bits)))
    steps = np.linspace(0.05, 1.8, 24)
    least = np.inf
    for bases in product(steps, repeat=bits):
        if list(bases) == sorted(bases):
            away = np.abs(rows[0][:, None] - signs @ bases).min(axis=1)
            least = min(least, float(np.sum(away**2)))
    ours = np.sum((values_of(codebook("lq", rows, bits)) - rows) ** 2)
    # of so few weights there are many minima; it starts near four of them
    assert ours <= 1.2 * least
