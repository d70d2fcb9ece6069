"""Levels that are a fixed set, times a gain or a power of two."""

import numpy as np
import pytest
from support.levels import VECTORS, WORKED, distributed, relative_error, values_of

from ptq.weights import weight_quantizer

SETS = {1: [1], 2: [0, 1], 3: [0, 1, 2, 4], 4: [0, 1, 2, 4, 8, 16, 32, 64]}


def errors(rows, book):
    return np.sum((values_of(book) - rows.astype(np.float64)) ** 2, axis=1)


@pytest.mark.parametrize("bits", SETS)
def test_levels_of_qnet_are_those_of_the_paper_times_a_gain(bits):
    rows = np.random.default_rng(0).standard_normal((3, 60)).astype(np.float32)
    found = weight_quantizer("qnet").codebook(rows, bits)
    levels = sorted({sign * level for level in SETS[bits] for sign in (-1, 1)})
    assert found.levels / found.scale[:, None] == pytest.approx(np.array([levels] * 3))


@pytest.mark.parametrize("levels", ["powers", "even"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_qnet_is_near_the_best_of_a_thousand_gains(levels, bits):
    rows = np.random.default_rng(0).laplace(size=(6, 80)).astype(np.float32)
    found = weight_quantizer("qnet", levels=levels).codebook(rows, bits)
    unit = found.levels[0] / found.scale[0]
    least = np.full(len(rows), np.inf)
    for share in np.linspace(0.001, 1.2, 1000):
        gains = share * np.abs(rows).max(axis=1, keepdims=True) / unit[-1]
        away = np.abs(rows[:, :, None] - (gains * unit)[:, None]).min(axis=2)
        least = np.minimum(least, np.sum(away**2, axis=1))
    # of 80 weights there are many minima
    assert np.all(errors(rows, found) <= 1.05 * least)


def test_the_gain_of_qnet_is_that_of_least_squares():
    rows = distributed("normal", 2000)
    for bits in (2, 3, 4):
        found = weight_quantizer("qnet").codebook(rows, bits)
        codes = values_of(found) / found.scale[:, None]
        gain = np.sum(codes * rows) / np.sum(codes**2)
        # it stops where a step gains 1e-5 of the error, and is held by 1e-6 of its value
        assert found.scale[0] == pytest.approx(gain, rel=5e-3)
        assert relative_error(rows, found) <= relative_error(
            rows, weight_quantizer("pot").codebook(rows, bits)
        )


def test_qnet_of_two_bits_is_twn():
    rows = distributed("normal")
    found, exact = (weight_quantizer(n).codebook(rows, 2) for n in ("qnet", "twn"))
    assert relative_error(rows, found) == pytest.approx(relative_error(rows, exact), rel=1e-3)


def test_pot_of_the_worked_example():
    wanted = VECTORS["pot_inq_b3"]
    found = weight_quantizer("pot", top="inq").codebook(WORKED, 3)
    assert found.levels[0, :3:-1].tolist() == wanted["levels"]
    assert found.levels[0, -1] == 2.0 ** wanted["n1"]
    # -1.5 is as near to -1 as to -2, which the paper's rule takes: 2^n from 0.75 2^n on
    assert values_of(found)[0].tolist() == [-2.0, *wanted["wq"][1:]]


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("top", ["search", "inq"])
def test_pot_has_powers_of_two_and_their_thresholds(bits, top):
    rows = np.random.default_rng(0).laplace(size=(5, 400)).astype(np.float32)
    rows *= np.geomspace(1e-4, 1e4, 5, dtype=np.float32)[:, None]
    found = weight_quantizer("pot", top=top).codebook(rows, bits)
    above = found.levels[:, 1 << (bits - 1) :]
    assert np.all(np.frexp(above)[0] == 0.5)
    assert np.all(above[:, 1:] == 2 * above[:, :-1])
    values, magnitudes = np.abs(values_of(found)), np.abs(rows.astype(np.float64))
    smallest, largest = above[:, :1], above[:, -1:]
    inside = (magnitudes > smallest) & (magnitudes < largest)
    # where the next power of two changes
    assert np.array_equal(values[inside], np.exp2(np.floor(np.log2(magnitudes / 0.75)))[inside])
    assert np.all(
        values[magnitudes >= largest]
        == np.broadcast_to(largest, values.shape)[magnitudes >= largest]
    )
    assert np.all(values[magnitudes < smallest / 2] == 0)


def test_the_top_of_inq_is_the_power_next_to_the_largest_weight():
    for largest in (0.74, 0.76, 1.0, 1.49, 1.51, 2.0):
        rows = np.array([[largest, -0.1]], np.float32)
        found = weight_quantizer("pot", top="inq").codebook(rows, 3)
        assert found.levels[0, -1] == 2.0 ** np.floor(np.log2(4 * largest / 3))
        assert values_of(found)[0, 0] == found.levels[0, -1]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_searched_top_is_the_best_of_all_powers(bits):
    rows = np.random.default_rng(0).standard_t(3, size=(30, 60)).astype(np.float32)
    found = weight_quantizer("pot").codebook(rows, bits)
    unit = found.levels / found.levels[:, -1:]
    least = np.full(len(rows), np.inf)
    for top in range(-12, 8):
        away = np.abs(rows[:, :, None] - 2.0**top * unit[:, None]).min(axis=2)
        least = np.minimum(least, np.sum(away**2, axis=1))
    assert errors(rows, found) == pytest.approx(least, rel=1e-9)
    assert np.all(least <= errors(rows, weight_quantizer("pot", top="inq").codebook(rows, bits)))


def test_codes_of_powers_of_two_fit_kernels_that_saturate():
    from ptq.numerics.qtype import QType

    rows = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    tensor = weight_quantizer("pot").quantize(rows, QType(4, signed=True), axis=0, symmetric=True)
    assert np.abs(tensor.levels).max() == 64
    assert np.all(np.frexp(tensor.qparams.scale)[0] == 0.5)
