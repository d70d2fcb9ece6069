"""Trained quantizers give the values and gradients of the papers' formulas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.faking import Faking, activation_start, weight_start

from ptq.train.fakequant.base import WeightStart
from ptq.train.fakequant.dorefa import Dorefa
from ptq.train.fakequant.fqn import Fqn
from ptq.train.fakequant.lsq import Lsq
from ptq.train.fakequant.lsq_plus import LsqPlus
from ptq.train.fakequant.pact import Pact
from ptq.train.fakequant.pact_sawb import PactSawb
from ptq.train.fakequant.qil import Qil
from ptq.train.fakequant.wrpn import Wrpn

VECTORS = json.loads((Path(__file__).parents[1] / "numerics" / "vectors.json").read_text())
W = np.array(VECTORS["inputs"]["w"], np.float32)
X = np.array(VECTORS["inputs"]["x"], np.float32)

#: A few operations in float32.
CLOSE = {"rtol": 2e-6, "atol": 1e-6}


def whole(bits: int, bound: float = 1.0, array: np.ndarray = W) -> WeightStart:
    return weight_start(array, bits, bound)


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_pact(alpha: float) -> None:
    wanted = VECTORS[f"pact_k2_alpha{alpha}"]
    faking = Faking(Pact(), activation_start(2, alpha), X)
    found = faking.run(X)
    np.testing.assert_allclose(found["value"], wanted["yq"], **CLOSE)
    np.testing.assert_array_equal(found["d/x"], wanted["dy_dx"])
    np.testing.assert_array_equal(faking.by_element("alpha", X), wanted["dy_dalpha"])


def test_a_mirrored_bound_gets_the_gradient_of_both_ends() -> None:
    x = np.array([-2.0, -1.0, -0.3, 0.0, 0.4, 1.0, 3.0], np.float32)
    faking = Faking(Pact(mirrored=True), activation_start(4, 1.0, -1.0), x)
    by_alpha = faking.by_element("alpha", x, alpha=0.8)
    np.testing.assert_allclose(by_alpha, [-8 / 7, -8 / 7, 0, 0, 0, 1, 1], rtol=2e-6)
    assert faking.run(x, alpha=0.8)["d/x"].tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_each_of_two_bounds_gets_the_gradient_of_its_end() -> None:
    x = np.array([-2.0, -0.3, 0.0, 0.4, 3.0], np.float32)
    faking = Faking(Pact(), activation_start(4, 1.0, -0.5), x)
    assert faking.by_element("alpha", x).tolist() == [0, 0, 0, 0, 1]
    assert faking.by_element("beta", x).tolist() == [1, 0, 0, 0, 0]


def test_the_decay_of_a_bound_is_in_proportion_to_the_square_of_its_step() -> None:
    decays = {}
    for bits in (2, 4, 8):
        (alpha,) = Pact(decay=1e-3).activation_parameters(activation_start(bits, 6.0))
        decays[bits] = alpha.decay
    assert decays[4] == 1e-3
    assert decays[2] == pytest.approx(25e-3)
    assert decays[8] == pytest.approx(1e-3 / 17**2)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_sawb_with_the_bound_at_most_the_maximum(bits: int) -> None:
    alpha = min(VECTORS[f"sawb_{bits}"]["alpha"], 1.5)
    found = Faking(PactSawb(), whole(bits), W).run(W)
    np.testing.assert_allclose(found["scale"] * (2**bits - 1), alpha, rtol=2e-6)
    top = 2**bits - 1
    level = np.rint((np.clip(W / alpha, -1, 1) / 2 + 0.5) * top)
    np.testing.assert_allclose(found["value"], alpha * (2 * level / top - 1), **CLOSE)
    if bits == 2:  # the bound is below the maximum
        np.testing.assert_allclose(found["value"], VECTORS["sawb_2"]["wq"], **CLOSE)
    np.testing.assert_array_equal(found["d/x"], np.ones_like(W))


def test_sawb_of_equal_magnitudes_has_the_bound_of_least_error() -> None:
    w = np.array([0.5, -0.5, 0.5, -0.5], np.float32)
    found = Faking(PactSawb(), whole(4, 0.5, w), w).run(w)
    np.testing.assert_allclose(found["value"], w, **CLOSE)


@pytest.mark.parametrize("bits", [2, 4])
def test_dorefa_weights(bits: int) -> None:
    found = Faking(Dorefa(), whole(bits), W).run(W)
    levels = np.array(VECTORS[f"dorefa_w{bits}"]["wq"])
    np.testing.assert_allclose(found["value"] / found["scale"], levels * (2**bits - 1), **CLOSE)
    gain = np.sum(levels * W) / np.sum(levels**2)
    np.testing.assert_allclose(found["value"], gain * levels, **CLOSE)
    slope = (1 - np.tanh(W) ** 2) / np.tanh(1.5)
    np.testing.assert_allclose(found["d/x"], gain * slope, rtol=1e-5)


def test_dorefa_binary_weights() -> None:
    w = np.append(W, np.float32(0.0))
    found = Faking(Dorefa(), whole(1, array=w), w).run(w)
    np.testing.assert_allclose(found["scale"], np.mean(np.abs(w)), rtol=2e-6)
    np.testing.assert_allclose(found["value"], found["scale"] * np.where(w < 0, -1, 1), rtol=2e-6)
    np.testing.assert_array_equal(found["d/x"], np.ones_like(w))


@pytest.mark.parametrize("method", [Dorefa(), Wrpn()])
def test_activations_clipped_to_one(method: Dorefa | Wrpn) -> None:
    found = Faking(method, activation_start(2, 1.0), X).run(X)
    np.testing.assert_allclose(found["value"], VECTORS["dorefa_a2"]["aq"], **CLOSE)
    np.testing.assert_array_equal(found["d/x"], (X > 0) & (X < 1))


@pytest.mark.parametrize("bits", [2, 4])
def test_wrpn_weights(bits: int) -> None:
    found = Faking(Wrpn(), whole(bits), W).run(W)
    np.testing.assert_allclose(found["value"], VECTORS[f"wrpn_w{bits}"]["wq"], **CLOSE)
    np.testing.assert_array_equal(found["d/x"], np.abs(W) < 1)


@pytest.mark.parametrize("gamma", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("train_gamma", [False, True])
def test_qil_weights(gamma: float, train_gamma: bool) -> None:
    wanted = VECTORS[f"qil_w3_c.7_d.5_g{gamma}"]
    faking = Faking(Qil(gamma=gamma, train_gamma=train_gamma), whole(3), W)
    found = faking.run(W, center=0.7, distance=0.5)
    np.testing.assert_allclose(found["value"], wanted["wbar"], **CLOSE)


@pytest.mark.parametrize(
    ("name", "wanted"), [("center", "dc"), ("distance", "dd"), ("gamma", "dgamma")]
)
def test_qil_gradients(name: str, wanted: str) -> None:
    faking = Faking(Qil(train_gamma=True), whole(3), W)
    found = faking.by_element(name, W, center=0.7, distance=0.5)
    np.testing.assert_allclose(found, VECTORS["qil_grads_g1"][wanted], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.6, 1.7])
def test_qil_gradients_with_an_exponent(gamma: float) -> None:
    c, d = 0.7, 0.5
    faking = Faking(Qil(gamma=gamma, train_gamma=True), whole(3), W)
    t = (np.abs(W) - (c - d)) / (2 * d)
    inside = (t > 0) & (t < 1)
    t = np.where(inside, t, 1.0)
    slope = inside * gamma * t ** (gamma - 1) / (2 * d)
    wanted = {
        "center": -slope,
        "distance": -slope * (np.abs(W) - c) / d,
        "gamma": t**gamma * np.log(t),
    }
    given = {"center": c, "distance": d}
    for name, magnitude in wanted.items():
        found = faking.by_element(name, W, **given)
        np.testing.assert_allclose(found, np.sign(W) * magnitude, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(faking.run(W, **given)["d/x"], slope, rtol=1e-5, atol=1e-6)


def test_qil_activations_decode_apart_from_encoding() -> None:
    faking = Faking(Qil(), activation_start(2, 1.0), X)
    found = faking.run(X, distance=0.35, decoded=2.0)
    np.testing.assert_allclose(found["encode"], 0.7 / 3, rtol=2e-6)
    np.testing.assert_allclose(found["scale"], 2.0 / 3, rtol=2e-6)
    codes = np.clip(np.rint(X / np.float32(0.7 / 3)), 0, 3)
    np.testing.assert_allclose(found["value"], codes * 2 / 3, **CLOSE)
    inside = (X > 0) & (X < 0.7)
    np.testing.assert_allclose(found["d/x"], inside * 2.0 / 0.7, rtol=1e-5)
    by_d = faking.by_element("distance", X, distance=0.35, decoded=2.0)
    np.testing.assert_allclose(by_d, -2.0 * inside * X / (2 * 0.35**2), rtol=1e-5)
    by_o = faking.by_element("decoded", X, distance=0.35, decoded=2.0)
    np.testing.assert_allclose(by_o, codes / 3, **CLOSE)


def by_step(x: np.ndarray, step: float, lo: float, hi: float) -> np.ndarray:
    """Return the gradient of LSQ by the step, equation 3 of the paper."""
    v = x / step
    return np.where(v <= lo, lo, np.where(v >= hi, hi, np.rint(v) - v))


def test_lsq_weights() -> None:
    step = 0.31
    faking = Faking(Lsq(), whole(3, 3 * step), W)
    np.testing.assert_allclose(
        faking.run(W)["value"], step * np.clip(np.rint(W / step), -3, 3), **CLOSE
    )
    # trained in units of the step that it starts with
    wanted = step * by_step(W.astype(np.float64), step, -3, 3) / np.sqrt(W.size * 3)
    np.testing.assert_allclose(faking.by_element("step", W), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(faking.run(W)["d/x"], np.abs(W) < 3 * step)


def test_lsq_activations() -> None:
    start = activation_start(4, 1.13, -0.42, size=50)
    faking = Faking(Lsq(), start, X)
    lo, hi = -start.zero_point, 15 - start.zero_point
    wanted = start.scale * by_step(X.astype(np.float64), start.scale, lo, hi) / np.sqrt(50 * 15)
    np.testing.assert_allclose(faking.by_element("step", X), wanted, rtol=1e-4, atol=1e-6)


def test_lsq_plus_offset_has_a_gradient_where_it_clips() -> None:
    start = activation_start(4, 1.13, -0.42, size=50)
    faking = Faking(LsqPlus(), start, X)
    x = X / np.float32(start.scale)
    lo, hi = -start.zero_point, 15 - start.zero_point
    outside = (x < lo) | (x > hi)
    wanted = start.scale * outside / np.sqrt(50 * 15)
    np.testing.assert_allclose(faking.by_element("offset", X), wanted, rtol=1e-5, atol=1e-8)
    shifted = x.astype(np.float64) + start.zero_point
    by = start.scale * by_step(shifted, 1.0, 0, 15) / np.sqrt(50 * 15)
    np.testing.assert_allclose(faking.by_element("step", X), by, rtol=1e-4, atol=1e-6)


def test_lsq_plus_moves_its_zero_point_with_the_offset() -> None:
    start = activation_start(4, 1.1, -0.4)
    found = Faking(LsqPlus(), start, X).run(X, offset=-6.6, step=1.5)
    assert found["zero"] == 4  # 6.6 / 1.5 = 4.4
    codes = np.clip(np.rint(X / found["scale"]) + 4, 0, 15)
    np.testing.assert_allclose(found["value"], found["scale"] * (codes - 4), **CLOSE)


def test_fqn_averages_extremes() -> None:
    faking = Faking(Fqn(decay=0.9), activation_start(8, 2.0, -1.0), X)
    found = faking.run(X, upper=2.0, lower=-1.0)
    np.testing.assert_allclose(found["next/upper"], 0.9 * 2.0 + 0.1 * 2.2, rtol=2e-6)
    np.testing.assert_allclose(found["next/lower"], -0.9 - 0.1 * 0.5, rtol=2e-6)
    np.testing.assert_allclose(found["scale"], 3.0 / 255, rtol=2e-6)
    assert found["zero"] == 85
    assert {p.role for p in faking.parameters.values()} == {"state"}


def test_fqn_of_a_constant_stream_keeps_its_extremes() -> None:
    faking = Faking(Fqn(), activation_start(8, 2.2, -0.5), X)
    found = faking.run(X, upper=X.max(), lower=X.min())
    np.testing.assert_allclose(
        [found["next/lower"], found["next/upper"]], [X.min(), X.max()], rtol=2e-6
    )


def test_fqn_weights_reach_the_largest_of_each_channel() -> None:
    w = np.stack([W, 0.25 * W])
    found = Faking(Fqn(), weight_start(w, 4, np.array([1.0, 1.0]), axis=0), w).run(w)
    np.testing.assert_allclose(found["scale"].ravel() * 7, [1.5, 0.375], rtol=2e-6)
    np.testing.assert_array_equal(found["d/x"], np.ones_like(w))
