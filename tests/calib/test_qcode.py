import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.calib import Range, solver
from ptq.calib.qcode import best_exponent, exponents, range_of_exponent
from ptq.numerics.affine import (
    exponent_limits,
    exponent_of_range,
    fake_quantize,
    qparams_power_of_two,
)
from ptq.numerics.qtype import INT4, INT8, INT16, UINT8
from ptq.stats.base import TensorStats

QTYPES = [INT4, INT8, UINT8, INT16]
OBJECTIVES = ["mse", "kl"]

every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def stats_of(*values):
    return TensorStats.of(np.array(values, np.float32))


def mse(x, n, qtype):
    return np.mean((x - fake_quantize(x, qparams_power_of_two(n, qtype)).astype(float)) ** 2)


@given(
    hnp.arrays(np.float32, 20, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.sampled_from(QTYPES),
    st.sampled_from(OBJECTIVES),
)
def test_the_range_names_its_exponent(x, qtype, objective):
    stats = TensorStats.of(x)
    method = solver("qcode", objective=objective)
    assert method.power_of_two
    found = method.solve(stats, qtype, symmetric=False)
    n = exponent_of_range(found.lo, qtype)
    assert n == best_exponent(stats, qtype, objective)
    assert n in exponents(stats, qtype)
    assert found == range_of_exponent(n, qtype)
    lo, hi = qparams_power_of_two(n, qtype).range()
    assert (found.lo, found.hi) == (lo, hi)
    least, most = exponent_limits(qtype)
    assert least <= n <= most


@pytest.mark.parametrize(("largest", "n0"), [(1.0, 7), (1.01, 6), (0.99, 7), (127, 0), (300, -2)])
def test_candidates_are_around_the_finest_that_does_not_overflow(largest, n0):
    assert exponents(stats_of(largest), INT8) == tuple(range(n0 - 1, n0 + 4))
    assert exponents(stats_of(-largest, 0.5), INT8) == tuple(range(n0 - 1, n0 + 4))


def test_an_unsigned_container_has_the_same_grid():
    assert range_of_exponent(6, UINT8) == range_of_exponent(6, INT8) == Range(-2.0, 127 / 64)


@pytest.mark.parametrize("qtype", QTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform", "relu"])
def test_least_error_is_that_of_the_values(kind, qtype):
    rng = np.random.default_rng(0)
    x = {
        "normal": rng.standard_normal(20_000),
        "laplace": rng.laplace(size=20_000),
        "uniform": rng.uniform(-3, 3, 20_000),
        "relu": np.maximum(rng.standard_normal(20_000), 0),
    }[kind].astype(np.float32)
    stats = TensorStats.of(x)
    n = best_exponent(stats, qtype, "mse")
    # No exponent outside of the candidates is better either.
    everywhere = range(min(exponents(stats, qtype)) - 4, max(exponents(stats, qtype)) + 5)
    assert mse(x, n, qtype) <= 1.02 * min(mse(x, m, qtype) for m in everywhere)


def test_the_worked_example():
    vectors = Path(__file__).parent.parent / "numerics" / "vectors.json"
    x = np.array(json.loads(vectors.read_text())["inputs"]["w"], np.float32)
    assert best_exponent(TensorStats.of(x), INT8, "mse") == 6


def test_divergence_cuts_a_long_tail_and_keeps_even_values():
    rng = np.random.default_rng(0)
    student = rng.standard_t(3, 100_000).astype(np.float32)
    stats = TensorStats.of(student)
    assert best_exponent(stats, INT8, "kl") > exponents(stats, INT8)[1]
    even = TensorStats.of(rng.uniform(-1, 1, 100_000).astype(np.float32))
    assert best_exponent(even, INT8, "kl") == exponents(even, INT8)[1]


@every_objective
def test_zeros_do_not_matter(objective):
    x = np.maximum(np.random.default_rng(0).standard_normal(50_000), 0).astype(np.float32)
    more = np.append(x, np.zeros(x.size * 9, np.float32))
    assert best_exponent(TensorStats.of(x), INT8, objective) == best_exponent(
        TensorStats.of(more), INT8, objective
    )


@every_objective
def test_zeros_alone_have_scale_one(objective):
    assert best_exponent(stats_of(0, 0), INT8, objective) == 0


@every_objective
@pytest.mark.parametrize("value", [1e-45, -1e-38, 3.4e38])
def test_exponents_stay_within_float32(objective, value):
    n = best_exponent(stats_of(value), UINT8, objective)
    least, most = exponent_limits(UINT8)
    assert n in (least, most)
