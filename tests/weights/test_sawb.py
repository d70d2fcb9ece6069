"""SAWB, against the worked example and the least error on the distributions of its fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from ptq.errors import ConfigError
from ptq.numerics.qtype import QType
from ptq.weights import weight_quantizer
from ptq.weights.sawb import COEFFICIENTS, WITH_ZERO, bound_of_least_error, bounds, level_index

VECTORS = json.loads((Path(__file__).parent.parent / "numerics" / "vectors.json").read_text())

W = np.array([VECTORS["inputs"]["w"]], np.float32)

#: In the middles of so many parts of the probability.
P = (np.arange(4000) + 0.5) / 4000


def von_mises():
    x = np.linspace(-np.pi, np.pi, 20001)
    total = np.cumsum(np.exp(np.cos(x)))
    return np.interp(P, total / total[-1], x)


#: The six families of the paper's regression, by their quantiles.
FAMILIES = {
    "normal": ndtri(P),
    "uniform": 2 * P - 1,
    "laplace": np.sign(P - 0.5) * -np.log(1 - 2 * np.abs(P - 0.5)),
    "logistic": np.log(P / (1 - P)),
    "triangle": np.sign(P - 0.5) * (1 - np.sqrt(1 - 2 * np.abs(P - 0.5))),
    "von mises": von_mises(),
}


def error(w, alpha, steps):
    levels = 2 * level_index(w, np.float64(alpha), steps) / steps - 1
    return float(((w - alpha * levels) ** 2).mean())


def best_bound(w, steps):
    most = np.abs(w).max()
    tried = most * np.linspace(0.02, 1.0, 250)
    return tried[int(np.argmin([error(w, a, steps) for a in tried]))]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_worked_example(bits):
    found, known = weight_quantizer("sawb").codebook(W, bits), VECTORS[f"sawb_{bits}"]
    c1, c2 = COEFFICIENTS[bits]
    inputs = VECTORS["inputs"]
    assert c1 * inputs["rms"] + c2 * inputs["E_abs"] == pytest.approx(known["alpha"])
    # The largest weight is 1.5, and the bound no larger.
    assert found.levels[0, -1] == pytest.approx(min(known["alpha"], 1.5), rel=1e-6)
    if known["alpha"] <= 1.5:
        values = np.take_along_axis(found.levels, found.index, axis=1)[0]
        assert values == pytest.approx(known["wq"], rel=1e-6)


def test_levels_with_0_have_a_fit_of_their_own():
    found = weight_quantizer("sawb", zero=True).codebook(W, 2)
    assert found.levels[0] == pytest.approx([-1.005930, 0.0, 1.005930], rel=1e-6)
    with pytest.raises(ConfigError, match="has 2 and 4 bits, not 3"):
        weight_quantizer("sawb", zero=True).codebook(W, 3)


@pytest.mark.parametrize(("bits", "most"), [(2, 1.006), (3, 1.014), (4, 1.28)])
def test_the_error_is_near_the_least_on_all_families(bits, most):
    rows = np.stack(list(FAMILIES.values()))
    steps = 2**bits - 1
    for w, alpha in zip(rows, bounds(rows, COEFFICIENTS[bits], steps), strict=True):
        ratio = error(w, alpha, steps) / error(w, best_bound(w, steps), steps)
        assert ratio <= most + 0.002  # of the sampling: 4000 quantiles, 250 bounds


@pytest.mark.parametrize(
    ("table", "bits", "steps"), [(COEFFICIENTS, 2, 3), (COEFFICIENTS, 3, 7), (WITH_ZERO, 2, 2)]
)
def test_coefficients_are_those_of_a_regression(table, bits, steps):
    rows = list(FAMILIES.values())
    root, mean = (
        np.array([f(w) for w in rows])
        for f in (lambda w: np.sqrt((w * w).mean()), lambda w: np.abs(w).mean())
    )
    best = np.array([best_bound(w, steps) for w in rows])
    # Least squares of best / E|w| = c1 root / E|w| + c2, which is free of units.
    fit = np.linalg.lstsq(np.stack([root / mean, mean / mean], 1), best / mean, rcond=None)[0]
    # As the published ones were recomputed elsewhere, from a list of families that is a guess.
    assert fit == pytest.approx(table[bits], rel=0.08)


@pytest.mark.parametrize("bits", [3, 4])
def test_equal_magnitudes_have_the_bound_of_least_error(bits):
    w = np.where(np.arange(64) % 2, 1.0, -1.0)[None].astype(np.float32)
    tensor = weight_quantizer("sawb").quantize(w, QType(bits, signed=True), axis=0, symmetric=True)
    # The fit would clip at 0.62, and below 0: 1 is a level of the bound 1.
    assert tensor.dequantize() == pytest.approx(w, rel=1e-6)


def test_codes_are_odd():
    w = np.random.default_rng(0).standard_normal((5, 100)).astype(np.float32)
    for bits in COEFFICIENTS:
        tensor = weight_quantizer("sawb").quantize(
            w, QType(bits, signed=True), axis=0, symmetric=True
        )
        assert np.all(tensor.codes % 2 == 1)
        assert tensor.levels[0].tolist() == list(range(1 - 2**bits, 2**bits, 2))


def test_the_bound_of_least_error_is_the_best_of_a_hundred():
    w = np.random.default_rng(0).laplace(size=500)
    tried = np.abs(w).max() * np.linspace(0, 1, 101)[1:]
    errors = [error(w, a, 7) for a in tried]
    assert bound_of_least_error(w, 7) == pytest.approx(tried[int(np.argmin(errors))])
