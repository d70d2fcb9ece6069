"""Levels that stand for equally many weights each."""

import numpy as np
import pytest
from support.levels import distributed, relative_error, values_of

from ptq.weights import weight_quantizer

each = pytest.mark.parametrize("name", ["balanced", "kquantile"])


@each
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_levels_serve_equally_many_weights_give_or_take_one(name, bits):
    parts = 1 << bits
    for size in range(parts, 41):
        row = np.random.default_rng(size).standard_normal((1, size)).astype(np.float32)
        counts = np.bincount(weight_quantizer(name).codebook(row, bits).index[0], minlength=parts)
        assert counts.sum() == size
        assert set(counts) <= {size // parts, -(-size // parts)}


@each
def test_fewer_weights_than_levels_have_one_each(name):
    row = np.array([[3, -1, 0, 0.5, 2]], np.float32)
    index = weight_quantizer(name).codebook(row, 4).index[0]
    assert len(set(index)) == 5
    assert np.array_equal(np.argsort(index), np.argsort(row[0]))


@each
def test_equal_weights_have_one_level(name):
    rows = np.array([[0, 0, 0, 0, 0, 0, 1, -1]], np.float32)
    values = values_of(weight_quantizer(name).codebook(rows, 2))[0]
    assert len(set(values[:6])) == 1


def test_kquantile_has_the_mean_or_the_median_of_each_part():
    rows = np.array([[-9, -4, -1, 0, 1, 2, 6, 7, 20]], np.float32)
    means = weight_quantizer("kquantile").codebook(rows, 1)
    medians = weight_quantizer("kquantile", level="median").codebook(rows, 1)
    assert means.levels[0] == pytest.approx([-3.5, 7.2])
    assert medians.levels[0] == pytest.approx([-2.5, 6])
    assert means.index.tolist() == medians.index.tolist() == [[0] * 4 + [1] * 5]


def test_kquantile_has_thresholds_at_the_quartiles_of_normal_weights():
    rows = distributed("normal")
    found = weight_quantizer("kquantile").codebook(rows, 2)
    # E[x | part] is 4 times the difference of densities at its ends: 0 and 0.6745
    density = np.exp(-(np.array([0, 0.6745]) ** 2) / 2) / np.sqrt(2 * np.pi)
    inner, outer = 4 * (density[0] - density[1]), 4 * density[1]
    assert found.levels[0] == pytest.approx([-outer, -inner, inner, outer], abs=1e-3)
    error = 1 - (inner**2 + outer**2) / 2
    assert relative_error(rows, found) == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_balanced_levels_are_evenly_spaced_and_fit_best(bits):
    rows = np.random.default_rng(0).gamma(2, size=(4, 100)).astype(np.float32)
    found = weight_quantizer("balanced").codebook(rows, bits)
    for row, levels, index in zip(rows, found.levels, found.index, strict=True):
        slope, start = np.polyfit(index, row.astype(np.float64), 1)
        assert levels == pytest.approx(start + slope * np.arange(1 << bits), abs=1e-9)
        # the paper's, over the whole range
        paper = np.linspace(row.min(), row.max(), 1 << bits)[index]
        assert np.sum((levels[index] - row) ** 2) <= np.sum((paper - row) ** 2)


def test_balanced_codes_have_all_the_entropy_that_there_is():
    rows = np.random.default_rng(0).laplace(size=(1, 4096)).astype(np.float32)
    found = weight_quantizer("balanced").codebook(rows, 3)
    assert np.bincount(found.index[0]).tolist() == [512] * 8


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_kquantile_is_no_worse_than_balanced(bits):
    rows = np.random.default_rng(0).laplace(size=(8, 200)).astype(np.float32)
    even, free = (weight_quantizer(n).codebook(rows, bits) for n in ("balanced", "kquantile"))
    # the same parts: means are at least as good as a line, and with two parts the same
    assert relative_error(rows, free) <= relative_error(rows, even) * (1 + 1e-12)
