"""The nearest codes of a matrix against those of one column after the other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounding import task, with_levels

from ptq.numerics.projection import nearest_codes


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), levels=st.booleans())
def test_they_are_those_of_each_column(seed, levels):
    made = task(seed, groups=2)
    made = with_levels(made, [-3, -1, 2]) if levels else made
    grid = made.nearest.grid
    values = 2 * made.w
    found = nearest_codes(values, grid)
    none = np.zeros((2, 3, 7))
    for column in range(6):
        steps = values[:, :, column] / grid.scale[:, :, 0] + grid.zero_point[:, :, 0]
        each = grid.nearest(steps, none, np.full(2, column))
        np.testing.assert_array_equal(found[:, :, column], each)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_what_fits_stays_and_what_does_not_shrinks_alike(seed):
    pairs = np.array([[1, 0, 3, 2, -1, -1], [2, -1, 0, 5, -1, 3]])
    bound = {"qmin": -128, "qmax": 127, "partners": pairs, "limit": 128}
    one = np.ones((2, 3, 1))
    made = task(seed, groups=2, grid={**bound, "scale": one, "zero_point": 0 * one})
    grid = made.nearest.grid
    found = nearest_codes(80 * made.w, grid)
    np.testing.assert_array_equal(nearest_codes(found, grid), found)
    plain = np.clip(np.rint(80 * made.w), -128, 127)
    assert np.all(np.abs(found) <= np.abs(plain))
    for first, second in ((0, 1), (2, 3), (0, 2), (3, 5)):
        assert np.abs(found[:, :, first] + found[:, :, second]).max() <= 128
    np.testing.assert_array_equal(found[:, :, 4], plain[:, :, 4])


def test_a_pair_that_is_too_large_shrinks_by_halves():
    one = np.ones((1, 1, 1))
    bound = {"qmin": -128, "qmax": 127, "partners": np.array([[1, 0]]), "limit": 128}
    made = task(0, rows=1, columns=2, grid={**bound, "scale": one, "zero_point": 0 * one})
    found = nearest_codes(np.array([[[100.0, 61.0]]]), made.nearest.grid)
    np.testing.assert_array_equal(found, [[[83.0, 45.0]]])
