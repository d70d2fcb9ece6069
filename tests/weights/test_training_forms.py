"""The weight quantizers of training methods, taken after training: DoReFa, WRPN, WAGE, QIL."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptq.numerics.qtype import QType
from ptq.weights import weight_quantizer
from ptq.weights.dorefa import warped_index
from ptq.weights.gain import least_squares_gain
from ptq.weights.qil import interval_codes
from ptq.weights.wage import grid_codes, shift
from ptq.weights.wrpn import clipped_codes

VECTORS = json.loads((Path(__file__).parent.parent / "numerics" / "vectors.json").read_text())

W = np.array([VECTORS["inputs"]["w"]])


def weights(shape=(8, 60)):
    return np.random.default_rng(0).laplace(size=shape).astype(np.float32)


def quantized(name, w, bits, **options):
    method = weight_quantizer(name, **options)
    return method.quantize(w, QType(bits, signed=True), axis=0, symmetric=True)


def errors(w, tensor):
    return ((tensor.dequantize().astype(np.float64) - w) ** 2).sum(axis=1)


@pytest.mark.parametrize("bits", [2, 4])
def test_dorefa_warps_as_in_the_worked_example(bits):
    top = 2**bits - 1
    found = 2 * warped_index(W, top) / top - 1
    assert found[0] == pytest.approx(VECTORS[f"dorefa_w{bits}"]["wq"])


def test_dorefa_of_one_bit_is_the_sign_times_the_mean_magnitude():
    w = weights()
    one, bwn = quantized("dorefa", w, 1), quantized("bwn", w, 1)
    assert one.dequantize() == pytest.approx(bwn.dequantize(), rel=1e-6)


@pytest.mark.parametrize("bits", [2, 4])
def test_wrpn_rounds_as_in_the_worked_example(bits):
    found = clipped_codes(W, bits) / (2 ** (bits - 1) - 1)
    assert found[0] == pytest.approx(VECTORS[f"wrpn_w{bits}"]["wq"])


@pytest.mark.parametrize("bits", [2, 4])
def test_wage_rounds_as_in_the_worked_example(bits):
    found = grid_codes(W, bits) * 2.0 ** (1 - bits)
    assert found[0] == pytest.approx(VECTORS[f"wage_k{bits}"]["wq"])


def test_wage_scales_are_the_powers_of_two_next_to_the_largest_weight():
    assert shift(np.array([0.0, 1.0, 1.41, 1.42, 3.0, 0.7])).tolist() == [1, 1, 1, 2, 4, 0.5]
    w = weights()
    scale = quantized("wage", w, 4).qparams.scale
    assert np.array_equal(scale * 8, shift(np.abs(w).max(axis=1).astype(np.float64)))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_qil_rounds_as_in_the_worked_example(gamma):
    found = interval_codes(W, 0.7 - 0.5, 0.7 + 0.5, 3, gamma) / 3
    assert found[0] == pytest.approx(VECTORS[f"qil_w3_c.7_d.5_g{gamma}"]["wbar"])


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_qil_is_never_worse_than_clipping_by_least_error(bits):
    w = np.concatenate([weights(), weights((8, 9)).repeat(7, axis=1)[:, :60] ** 3])
    ours, theirs = (errors(w, quantized(name, w, bits)) for name in ("qil", "mse"))
    # The gain and the scale are rounded to float32.
    assert np.all(ours <= theirs * (1 + 1e-6))
    assert ours.sum() < theirs.sum()


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_qil_finds_about_the_best_interval(gamma):
    w = weights((6, 40))
    most = np.abs(w).max(axis=1).astype(np.float64)
    best = np.full(len(w), np.inf)
    for begin in np.linspace(0, 0.5, 21):
        for end in np.linspace(begin + 0.02, 1.0, 60):
            ends = (most * begin)[:, None], (most * end)[:, None]
            codes = interval_codes(w, *ends, 3, gamma)
            gained = least_squares_gain(w, codes)[:, None] * codes
            best = np.minimum(best, ((gained - w) ** 2).sum(axis=1))
    ours = errors(w, quantized("qil", w, 3, gamma=gamma))
    # 1260 intervals are tried here, and 89 there: either finds the better one for some channels.
    assert ours.sum() <= best.sum() * 1.03


@pytest.mark.parametrize("name", ["dorefa", "wrpn", "qil"])
def test_no_other_gain_errs_less(name):
    w = weights()
    tensor = quantized(name, w, 3)
    own = errors(w, tensor)
    for factor in (0.99, 1.01):
        moved = (tensor.dequantize() * factor - w).astype(np.float64)
        assert np.all(own < (moved**2).sum(axis=1))
