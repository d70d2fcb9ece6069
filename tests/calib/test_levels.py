"""What every method with levels of its own promises, and what levels are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.calib import parse_method, solvers
from ptq.calib.levels import Levels
from ptq.calib.nonuniform import Points
from ptq.errors import CalibrationError
from ptq.numerics.qtype import INT4, UINT2, UINT4, QType
from ptq.stats.base import TensorStats

METHODS = ["hwgq:rule=paper", *(name for name in solvers() if not parse_method(name).uniform)]
QTYPES = [UINT2, QType(3, signed=False), UINT4, INT4]

every_method = pytest.mark.parametrize("name", METHODS)
ARRAYS = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-50, 50, width=32).map(lambda x: x + 0.0)
)


def solve(name, x, qtype=UINT4):
    stats = TensorStats.of(np.asarray(x, np.float32))
    return parse_method(name).levels(stats, qtype, symmetric=False)


@every_method
@settings(max_examples=settings().max_examples // 5)
@given(
    x=ARRAYS.filter(lambda x: np.any(x) and np.all((x == 0) | (np.abs(x) > 1e-20))),
    power=st.sampled_from([-20, -1, 9]),
    qtype=st.sampled_from(QTYPES),
)
def test_levels_are_a_staircase_that_leaves_zero_and_scales_with_the_data(name, x, power, qtype):
    found, factor = solve(name, x, qtype), 2.0**power
    if found is None:
        assert name.startswith("hwgq")
        assert x.min() < 0 < x.max()
        return
    assert 1 <= len(found.values) <= 2**qtype.bits
    assert (found.values[0] < 0) <= (x.min() < 0)
    assert (found.values[-1] > 0) <= (x.max() > 0)
    grid = np.linspace(-60, 60, 241)
    assert np.all(np.diff(found(grid)) >= 0)
    assert found(np.zeros(1)) == 0
    assert set(found(grid)) <= set(found.values)
    scaled = solve(name, x * np.float32(factor), qtype)
    np.testing.assert_array_equal(scaled.values, np.asarray(found.values) * factor)
    # what begins right below zero begins one float below it
    np.testing.assert_allclose(scaled.starts, np.multiply(found.starts, factor), 0, 1e-300)


@every_method
def test_zeros_have_no_levels_and_what_was_never_seen_is_refused(name):
    assert solve(name, np.zeros(9)) is None
    with pytest.raises(CalibrationError, match="no value was observed"):
        solve(name, np.zeros(0))


@every_method
@pytest.mark.parametrize("sign", [1, -1])
def test_a_negative_tensor_is_the_mirror_of_a_positive_one(name, sign):
    x = np.abs(np.random.default_rng(0).standard_normal(3000)).astype(np.float32)
    one, other = solve(name, x), solve(name, -x)
    # a value on the edge of a bin belongs to the one above it
    np.testing.assert_allclose(np.negative(other.values)[::-1], one.values, atol=2e-3)
    np.testing.assert_allclose(np.negative(other.starts)[::-1], one.starts, atol=2e-3)


def test_points_know_the_error_of_a_staircase():
    x = np.random.default_rng(0).laplace(size=20_000)
    found = Levels.nearest([-1.5, 0.0, 0.7, 2.0])
    wanted = np.sum((x - found(x)) ** 2)
    # to a thousandth of a bin
    assert Points.of(TensorStats.of(x)).error(found) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "starts", "message"),
    [
        ((0.0, np.inf), (1.0,), "not finite"),
        ((0.0, 2.0, 1.0), (0.5, 1.0), "do not ascend"),
        ((0.0, 1.0), (), "do not ascend"),
        ((0.0, 1.0), (-0.5,), "leave zero"),
        ((1.0, 2.0), (1.5,), "leave zero"),
    ],
)
def test_what_is_no_staircase_is_refused(values, starts, message):
    with pytest.raises(CalibrationError, match=message):
        Levels(values, starts)


def test_a_value_at_a_start_is_below_it():
    found = Levels((-1.0, 0.0, 2.0), (-0.5, 1.0))
    np.testing.assert_array_equal(found(np.array([-0.5, -0.4, 0.0, 1.0, 1.1])), [-1, 0, 0, 0, 2])
    assert (found.lo, found.hi) == (-1.0, 2.0)
