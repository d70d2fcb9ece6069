"""PACT, DoReFa and WRPN: what they make of activations, and what their papers say."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptq.calib import Range, parse_method, solver
from ptq.numerics.affine import fake_quantize, qparams_from_range
from ptq.numerics.qtype import UINT2, UINT4, UINT8
from ptq.stats.base import TensorStats

VECTORS = json.loads((Path(__file__).parents[1] / "numerics" / "vectors.json").read_text())


def relu(size=20_000):
    x = np.random.default_rng(0).laplace(size=size)
    return np.maximum(x, 0).astype(np.float32)


def quantized(x, found, qtype):
    params = qparams_from_range(found.lo, found.hi, qtype, symmetric=False)
    return fake_quantize(x, params)


@pytest.mark.parametrize("qtype", [UINT2, UINT4], ids=str)
def test_no_alpha_of_a_thousand_has_a_smaller_error(qtype):
    x = relu()
    found = solver("pact").solve(TensorStats.of(x), qtype, symmetric=False)
    assert found.lo == 0

    def error(alpha):
        return float(np.sum((x - quantized(x, Range(0, alpha), qtype)) ** 2))

    least = min(error(float(a)) for a in np.linspace(0, x.max(), 301)[1:])
    assert error(found.hi) <= 1.01 * least


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_what_is_written_is_the_formula_of_the_paper(alpha):
    x = np.float32(VECTORS["inputs"]["x"])
    wanted = VECTORS[f"pact_k2_alpha{alpha}"]["yq"]
    np.testing.assert_allclose(quantized(x, Range(0, alpha), UINT2), wanted, rtol=1e-6)


def test_both_signs_are_clipped_as_by_mse():
    x = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    stats = TensorStats.of(x)
    pact, mse = (solver(n).solve(stats, UINT4, symmetric=False) for n in ("pact", "mse"))
    assert pact == mse


def test_a_factor_turns_alpha_within_the_data():
    stats = TensorStats.of(relu())
    one, half, far = (
        parse_method(f"pact:factor={f}").solve(stats, UINT4, symmetric=False)
        for f in (1.0, 0.5, 8.0)
    )
    assert half == Range(0, one.hi / 2)
    assert far.hi == stats.minmax.hi


def test_only_the_search_runs_the_network():
    assert parse_method("pact:by=output").runs_network
    assert not parse_method("pact").runs_network


@pytest.mark.parametrize("name", ["dorefa", "wrpn"])
def test_the_range_is_the_unit_interval_where_the_data_reach(name):
    def solve(x):
        return solver(name).solve(TensorStats.of(np.float32(x)), UINT8, symmetric=False)

    assert solve([0.2, 7.0]) == Range(0, 1)
    assert solve([-3.0, 5.0]) == Range(-1, 1)
    assert solve([-0.5, 5.0]) == Range(-0.5, 1)
    assert solve([0.25, 0.5]) == Range(0, 0.5)


def test_a_known_case_of_dorefa():
    x = np.float32(VECTORS["inputs"]["x"])
    found = solver("dorefa").solve(TensorStats.of(np.maximum(x, 0)), UINT2, symmetric=False)
    wanted = np.ravel(list(VECTORS["dorefa_a2"].values()))
    np.testing.assert_allclose(quantized(x, found, UINT2), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["dorefa", "wrpn"])
def test_activations_are_quantized_by_the_formula(name):
    x = np.random.default_rng(0).uniform(0, 2, 1000).astype(np.float32)
    found = solver(name).solve(TensorStats.of(x), UINT2, symmetric=False)
    wanted = np.rint(3 * np.clip(x.astype(np.float64), 0, 1)) / 3
    np.testing.assert_allclose(quantized(x, found, UINT2), wanted, atol=1e-6)
