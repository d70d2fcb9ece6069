"""Each method with levels of its own against its published constants or a search by brute force."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptq.calib import parse_method
from ptq.calib.levels import Levels
from ptq.calib.nonuniform import uniform_levels
from ptq.calib.qil import _starts
from ptq.numerics.qtype import UINT2, UINT4, QType
from ptq.stats.base import TensorStats

VECTORS = json.loads((Path(__file__).parents[1] / "numerics" / "vectors.json").read_text())
RNG = np.random.default_rng(0)
SAMPLES = {
    "half-normal": np.abs(RNG.standard_normal(40_000)),
    "relu": np.maximum(RNG.laplace(size=40_000), 0),
    "relu6": np.clip(RNG.standard_normal(40_000) * 4, 0, 6),
    "normal": RNG.standard_normal(40_000),
    "swish": (lambda z: z / (1 + np.exp(-z)))(2 * RNG.standard_normal(40_000)),
}
SAMPLES = {name: x.astype(np.float32) for name, x in SAMPLES.items()}
THREE = QType(3, signed=False)

every_sample = pytest.mark.parametrize("x", SAMPLES.values(), ids=SAMPLES)


def solve(method, x, qtype):
    return parse_method(method).levels(TensorStats.of(x), qtype, symmetric=False)


def error(levels, x):
    return float(np.mean((x - levels(x.astype(np.float64))) ** 2))


@every_sample
@pytest.mark.parametrize("qtype", [UINT2, UINT4], ids=str)
@pytest.mark.parametrize("method", ["lloyd", "lq"])
def test_the_error_is_no_larger_than_on_the_best_uniform_grid(method, x, qtype):
    found = error(solve(method, x, qtype), x)
    # the histogram knows the error to less than a percent
    assert found <= 1.01 * error(uniform_levels(TensorStats.of(x), qtype), x)


def test_lloyd_finds_the_levels_of_max():
    # of 7 levels of a normal distribution, those from 0 up: Max 1960, table I
    found = solve("lloyd", SAMPLES["half-normal"], UINT2)
    # quantiles of 40,000 values are known to 2 or 3 %
    np.testing.assert_allclose(found.values, [0, 0.5606, 1.188, 2.033], rtol=0.03)
    np.testing.assert_allclose(found.starts, [0.2803, 0.8744, 1.611], rtol=0.03)
    assert error(found, SAMPLES["half-normal"]) == pytest.approx(0.0440, rel=0.03)


@every_sample
def test_levels_of_lloyd_are_means_of_the_values_nearest_to_them(x):
    found = solve("lloyd", x, UINT4)
    values, became = np.asarray(found.values), found(x.astype(np.float64))
    means = [x[became == v].mean() if v and np.any(became == v) else v for v in values]
    # of the middles of bins of 2^-8 or less
    np.testing.assert_allclose(values, means, atol=2**-8)
    np.testing.assert_allclose(found.starts, (values[1:] + values[:-1]) / 2)


@pytest.mark.parametrize("name", ["half-normal", "relu", "relu6"])
def test_no_basis_of_two_bits_is_better_than_that_of_lq(name):
    x = SAMPLES[name][:4000]
    found = error(solve("lq", x, UINT2), x)
    tries = np.linspace(0.03, 1, 34) * x.max()
    least = min(
        error(Levels.nearest([0, a, b, a + b]), x) for i, a in enumerate(tries) for b in tries[i:]
    )
    assert found <= 1.02 * least


def test_levels_of_lq_are_sums_of_a_basis():
    for name, qtype in (("half-normal", THREE), ("relu", UINT4)):
        values = np.asarray(solve("lq", SAMPLES[name], qtype).values)
        basis: list[float] = []
        for value in values[1:]:
            sums = {
                sum(b for i, b in enumerate(basis) if k >> i & 1) for k in range(2 ** len(basis))
            }
            if min(abs(value - s) for s in sums) > 1e-9:
                basis.append(value)
        assert len(basis) <= qtype.bits
        assert len(values) == 2 ** len(basis)


def test_qil_encodes_as_the_paper_does():
    x = np.asarray(VECTORS["inputs"]["x"])
    # center 0.7 and distance 0.5
    found = Levels.of(np.arange(4) / 3, _starts(0.2, 1.2, 3))
    np.testing.assert_allclose(found(x), VECTORS["qil_a2"]["abar"], rtol=1e-12)


def interval_error(x, p, u, top):
    k = np.clip(np.rint((x - p) / (u - p) * top), 0, top)
    return float(np.mean((x - (x @ k) / (k @ k) * k) ** 2)) if k.any() else np.inf


@pytest.mark.parametrize("name", ["half-normal", "relu", "relu6"])
@pytest.mark.parametrize("qtype", [UINT2, THREE], ids=str)
@pytest.mark.parametrize("prune", [0, 30])
def test_no_upper_end_is_better_than_that_of_qil(name, qtype, prune):
    x = SAMPLES[name][:4000].astype(np.float64)
    p = np.percentile(x[x != 0], prune) if prune else 0.0
    ends = p + np.linspace(0, 1, 101)[1:] * (x.max() - p)
    least = min(interval_error(x, p, u, 2**qtype.bits - 1) for u in ends)
    assert error(solve(f"qil:prune={prune}", x, qtype), x) <= 1.01 * least


def test_no_interval_has_less_error_than_the_best_even_grid():
    x = SAMPLES["relu"][:4000].astype(np.float64)
    ends = np.linspace(0, 1, 41) * x.max()
    least = min(interval_error(x, p, u, 3) for p in ends[:20] for u in ends if u > p)
    # the grid of ends is coarse, the search is not
    assert error(uniform_levels(TensorStats.of(x), UINT2), x) <= 1.001 * least
    assert error(solve("qil", x, UINT2), x) <= 1.001 * least


def test_qil_is_even_about_zero_where_there_are_both_signs():
    found = solve("qil", SAMPLES["normal"], THREE)
    values = np.asarray(found.values)
    np.testing.assert_array_equal(values, -values[::-1])
    np.testing.assert_allclose(np.diff(values), values[-1] / 3)


@pytest.mark.parametrize("keep", [25, 60])
@pytest.mark.parametrize("name", ["relu", "normal"])
def test_sparse_keeps_the_largest_values(name, keep):
    x = SAMPLES[name]
    kept = solve(f"sparse:keep={keep}", x, UINT4)(x.astype(np.float64)) != 0
    # bins are kept whole, of 2^-8 or less
    assert kept.mean() == pytest.approx(keep / 100 * np.mean(x != 0), abs=5e-3)
    assert np.abs(x[kept]).min() >= np.abs(x[~kept]).max() - 2**-8


def test_sparse_that_keeps_all_is_the_rule_of_hwgq():
    found = solve("sparse:keep=100", SAMPLES["half-normal"], UINT2)
    np.testing.assert_allclose(found.values, 0.5388 * np.arange(4), rtol=0.02)
    assert found.starts[0] == 0


def test_the_step_of_sparse_is_that_of_least_error():
    x = SAMPLES["relu"]
    found = solve("sparse:keep=50", x, UINT2)
    least = found.starts[0]
    for factor in (0.9, 0.97, 1.03, 1.1):
        values = np.asarray(found.values) * factor
        starts = np.maximum(least, np.append(least, (values[1:-1] + values[2:]) / 2))
        assert error(found, x) <= error(Levels.of(values, starts), x)


@pytest.mark.parametrize(("density", "qtype"), [(1, UINT2), (1, THREE), (2, UINT4)])
def test_levels_of_log2_are_powers(density, qtype):
    found = solve(f"log2:per_octave={density}", SAMPLES["relu"], qtype)
    values = np.asarray(found.values)[1:]
    assert values.size == 2**qtype.bits - 1
    np.testing.assert_allclose(values[1:] / values[:-1], 2 ** (1 / density))


def test_no_more_octaves_than_codes_of_eight_bits_tell_apart():
    found = solve("log2:per_octave=1", SAMPLES["relu"], UINT4)
    assert len(found.values) == 1 + 8


def test_log2_is_good_for_what_a_softmax_puts_out():
    z = 2 * RNG.standard_normal((400, 64))
    x = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).astype(np.float32)
    uniform = uniform_levels(TensorStats.of(x), THREE)
    assert error(solve("log2", x, THREE), x) < 0.75 * error(uniform, x)
