import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.levels import VECTORS, WORKED

from ptq.numerics.bases import fitted, levels_of, residuals, signs
from ptq.numerics.ordered import Ordered

ROWS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=st.floats(-4, 4)
)


def error(rows, patterns, bases):
    levels = (patterns * bases[:, None]).sum(axis=2)
    return np.sum(np.min((rows[:, :, None] - levels[:, None]) ** 2, axis=2), axis=1)


@settings(max_examples=20)
@given(ROWS, st.integers(1, 4))
def test_no_step_increases_the_error(rows, count):
    patterns, bases = signs(count), residuals(rows.astype(np.float32), count)
    before = error(rows, patterns, bases)
    for _ in range(6):
        bases, after = fitted(Ordered.of(rows), patterns, bases, 1)
        # errors are differences of sums of squares, which are at most 20 * 16
        assert np.all(error(rows, patterns, bases) <= before + 1e-12)
        assert after == pytest.approx(error(rows, patterns, bases), abs=1e-12)
        before = after


def test_the_worked_example_of_lq_nets():
    wanted = VECTORS["lqnets_K2_from_[.48,.8]"]
    start = np.array([[0.48, 0.8]])
    bases, found = fitted(Ordered.of(WORKED), signs(2), start)
    # the weights of the example are rounded to float32, and a base is held by 1e-6 of its value
    assert bases[0] == pytest.approx(wanted["basis"], abs=1e-6)
    assert found[0] / WORKED.size == pytest.approx(wanted["mse"], rel=1e-5)
    assert levels_of(signs(2), bases)[0] == pytest.approx([-1.2, -0.31, 0.31, 1.2], abs=1e-6)


def test_a_base_that_no_value_tells_of_stays():
    # all values are at 1.5 = 1 + 0.5, so that the difference of the bases means nothing
    bases, found = fitted(Ordered.of(np.full((1, 4), 2.0)), signs(2), np.array([[1.0, 0.5]]))
    assert bases.sum() == pytest.approx(2.0, abs=1e-6)
    assert bases[0, 0] - bases[0, 1] == pytest.approx(0.5, abs=1e-6)
    assert found[0] == pytest.approx(0, abs=1e-10)


def test_a_fit_is_that_of_least_squares():
    rows = np.random.default_rng(0).standard_normal((1, 30))
    patterns, start = signs(3), np.array([[1.1, 0.6, 0.3]])
    levels = patterns @ start[0]
    taken = patterns[np.argmin(np.abs(rows[0][:, None] - levels), axis=1)]
    wanted = np.linalg.lstsq(taken, rows[0], rcond=None)[0]
    assert fitted(Ordered.of(rows), patterns, start, 1)[0][0] == pytest.approx(wanted, abs=1e-5)
