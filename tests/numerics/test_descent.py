"""Coordinate descent against every change of one code, and against the published local minimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.numerics.descent import descend
from ptq.numerics.gptq import Grid, output_errors, with_damping


def problem(seed, *, bits=3):
    """Return weights, damped sums of inputs, a grid with a scale for each weight, and codes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 30, 6)) @ (rng.normal(size=(2, 6, 6)) + 1.0)
    w = rng.normal(size=(2, 3, 6))
    scale = rng.uniform(0.2, 0.6, w.shape)
    top = (1 << bits) - 1
    zero_point = rng.integers(0, top + 1, w.shape).astype(float)
    grid = Grid(scale, zero_point, 0, top, np.empty((0, 6), int), top)
    codes = np.clip(np.rint(w / scale + zero_point), 0, top)
    return w, with_damping(x.transpose(0, 2, 1) @ x, 0.01), grid, codes


@given(seed=st.integers(0, 10**6))
def test_rows_get_no_worse_and_no_single_code_could_be_better(seed):
    w, gram, grid, codes = problem(seed)
    found = descend(w, codes, gram, grid)
    assert np.all((found >= grid.qmin) & (found <= grid.qmax))
    least = output_errors(w, found, grid, gram)
    assert np.all(least <= output_errors(w, codes, grid, gram) * (1 + 1e-9))
    again = descend(w, found, gram, grid)
    if not np.array_equal(again, found):
        return  # its rounds were over before it arrived
    for column in range(w.shape[2]):
        for code in range(grid.qmax + 1):
            other = found.copy()
            other[:, :, column] = code
            assert np.all(output_errors(w, other, grid, gram) >= least * (1 - 1e-9))


def test_it_stays_in_a_minimum_of_one_code_at_a_time():
    """Two codes would have to change together to get from 0.32 to the optimum of 0.22."""
    gram = np.array([[[4.0, 3, 2], [3, 4, 3], [2, 3, 4]]])
    w, half = np.array([[[0.7, 0.8, -0.7]]]), np.full((1, 1, 3), 0.5)
    grid = Grid(half, np.zeros_like(half), -4, 3, np.empty((0, 3), int), 4)
    codes = np.rint(w / half)
    found = descend(w, codes, gram, grid)
    np.testing.assert_array_equal(found, codes)
    assert output_errors(w, found, grid, gram)[0, 0] == pytest.approx(0.32)
    assert output_errors(w, np.array([[[2, 1, -1]]]), grid, gram)[0, 0] == pytest.approx(0.22)


def test_codes_that_are_bound_to_one_another_keep_their_bound():
    w, gram = np.full((1, 1, 2), 100.0), np.eye(2)[None]
    one = np.ones((1, 1, 1))
    grid = Grid(one, 0 * one, -128, 127, np.array([[1, 0]]), 128)
    np.testing.assert_array_equal(descend(w, np.zeros_like(w), gram, grid), [[[100.0, 28.0]]])


def test_columns_beyond_a_block_count_as_those_within(monkeypatch):
    w, gram, grid, codes = problem(3)
    found = descend(w, codes, gram, grid)
    monkeypatch.setattr("ptq.numerics.descent._BLOCK", 4)
    np.testing.assert_array_equal(descend(w, codes, gram, grid), found)
    assert not np.array_equal(found, codes)
