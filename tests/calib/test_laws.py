"""What every range method promises."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.calib import Range, solver, solvers
from ptq.calib.nonuniform import NonUniformSolver
from ptq.errors import CalibrationError
from ptq.numerics.affine import exponent_of_range, qparams_from_range, qparams_power_of_two
from ptq.numerics.qtype import INT2, INT8, INT16, UINT4, UINT8
from ptq.stats.base import TensorStats

QTYPES = st.sampled_from([INT2, UINT4, INT8, UINT8, INT16])
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ORDINARY = st.one_of(st.floats(-100, 100, width=32), st.sampled_from([0.0, 6.0, -1.0, 64.0]))

#: Ranges of these are those of another, by the same function: of `mse` and `dorefa`.
SAME = {n for n, c in solvers().items() if issubclass(c, NonUniformSolver)} | {"pact", "wrpn"}
SOLVERS = [name for name in solvers() if name not in SAME]
every_solver = pytest.mark.parametrize("name", SOLVERS)

#: Of these the range is one number, whatever the data are.
ABSOLUTE = {"dorefa"}
relative_solver = pytest.mark.parametrize("name", sorted(set(SOLVERS) - ABSOLUTE))

#: There are many methods, and each law is tried of every one.
fewer = settings(max_examples=settings.default.max_examples // 2)


def arrays(elements):
    return hnp.arrays(np.float32, st.integers(1, 60), elements=elements)


def represented(method, found, qtype, symmetric):
    """The quantization parameters that a planner makes of a range."""
    if method.power_of_two:
        return qparams_power_of_two(exponent_of_range(found.lo, qtype), qtype)
    return qparams_from_range(found.lo, found.hi, qtype, symmetric=symmetric)


@every_solver
@fewer
@given(x=arrays(FINITE), qtype=QTYPES, symmetric=st.booleans())
def test_ranges_are_finite_and_within_the_data(name, x, qtype, symmetric):
    method = solver(name)
    stats = TensorStats.of(x)
    found = method.solve(stats, qtype, symmetric=symmetric)
    assert isinstance(found, Range)
    assert type(found.lo) is type(found.hi) is float
    assert math.isfinite(found.lo)
    assert math.isfinite(found.hi)
    assert found.lo <= 0 <= found.hi
    if not method.power_of_two:
        assert min(stats.minmax.lo, 0) <= found.lo
        assert found.hi <= max(stats.minmax.hi, 0)
    represented(method, found, qtype, symmetric)


@relative_solver
@fewer
@given(
    x=arrays(ORDINARY),
    power=st.sampled_from([-20, -1, 1, 9, 40]),
    qtype=QTYPES,
    symmetric=st.booleans(),
)
def test_a_power_of_two_scales_the_range_exactly(name, x, power, qtype, symmetric):
    factor = np.float32(2.0**power)
    # All of it normal and far from the least scale, or bits are lost.
    assume(np.all((x == 0) | (np.abs(x) > 1e-20)))
    assume(np.any(x))
    scaled = x * factor
    one = solver(name).solve(TensorStats.of(x), qtype, symmetric=symmetric)
    other = solver(name).solve(TensorStats.of(scaled), qtype, symmetric=symmetric)
    assert (other.lo, other.hi) == (one.lo * float(factor), one.hi * float(factor))


@every_solver
@fewer
@given(x=arrays(ORDINARY), cut=st.integers(0, 60), symmetric=st.booleans())
def test_the_range_depends_only_on_the_statistics(name, x, cut, symmetric):
    whole = TensorStats.of(x)
    parts = TensorStats.of(x[:cut]) + TensorStats.of(x[cut:])
    parts = TensorStats(parts.minmax, whole.ema, parts.hist)
    first = solver(name).solve(whole, UINT8, symmetric=symmetric)
    assert solver(name).solve(parts, UINT8, symmetric=symmetric) == first


@every_solver
@fewer
@given(x=arrays(ORDINARY), qtype=QTYPES, symmetric=st.booleans())
def test_a_sample_of_the_values_suffices_for_the_histogram(name, x, qtype, symmetric):
    whole = TensorStats.of(x)
    sampled = TensorStats(whole.minmax, whole.ema, TensorStats.of(x[::3]).hist)
    found = solver(name).solve(sampled, qtype, symmetric=symmetric)
    assert found.lo <= 0 <= found.hi


@every_solver
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("outlier", [1e5, -1e5, 1e30, -1e30])
def test_an_outlier_may_be_missing_from_the_histogram(name, symmetric, outlier):
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    sample = TensorStats.of(x).hist
    seen = TensorStats.of(np.append(x, np.float32(outlier)))
    found = solver(name).solve(
        TensorStats(seen.minmax, seen.ema, sample), UINT8, symmetric=symmetric
    )
    assert found.lo <= 0 <= found.hi


@every_solver
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_have_an_empty_range_or_any_power_of_two(name, symmetric):
    method = solver(name)
    found = method.solve(TensorStats.of(np.zeros(9, np.float32)), UINT8, symmetric=symmetric)
    params = represented(method, found, UINT8, symmetric)
    assert params.scale == 1
    assert method.power_of_two or (found.lo, found.hi) == (0, 0)


@pytest.mark.parametrize("name", sorted(set(SOLVERS) - {"scale", *ABSOLUTE}))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [5.0, -5.0, 1e-30, -1e30, 1.6e38])
def test_a_constant_is_covered(name, symmetric, value):
    method = solver(name)
    x = np.full(50, value, np.float32)
    found = method.solve(TensorStats.of(x), UINT8, symmetric=symmetric)
    params = represented(method, found, UINT8, symmetric)
    lo, hi = params.range()
    # The end of a range is within half a step of a code, and rounding to float32.
    assert lo - params.scale / 2 <= x[0]
    assert x[0] <= hi + params.scale / 2


@every_solver
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_tensor_of_one_sign_has_a_range_of_that_sign(name, symmetric, sign):
    method = solver(name)
    x = sign * np.abs(np.random.default_rng(0).standard_normal(5000)).astype(np.float32)
    found = method.solve(TensorStats.of(x), UINT8, symmetric=symmetric)
    if not method.power_of_two:
        assert (found.lo if sign > 0 else found.hi) == 0
    assert found.max_abs > 2 or name in ABSOLUTE


@every_solver
def test_no_values_have_no_range(name):
    with pytest.raises(CalibrationError, match="no value was observed"):
        solver(name).solve(TensorStats.of(np.zeros(0, np.float32)), INT8, symmetric=True)


@pytest.mark.parametrize("name", solvers())
def test_every_method_says_what_it_does_and_whence_it_comes(name):
    method = solvers()[name]
    assert method.title.endswith(".")
    assert method.paper
    assert method.good_for


def test_a_range_is_finite_and_includes_zero():
    for lo, hi in ((-math.inf, 0), (0, math.nan), (1, 2), (-2, -1), (1, -1)):
        with pytest.raises(CalibrationError):
            Range(lo, hi)
    assert Range(-4, 2).max_abs == 4
    assert Range(-4, 2).clipped(-1, 5) == Range(-1, 2)
    assert Range(-4, 2).clipped(1, 5) == Range(0, 2)
