"""Moves of two codes at once: out of the published local minimum, and never to the worse."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounding import task, with_levels

from ptq.numerics.descent import descend
from ptq.numerics.gptq import Grid, output_errors, with_damping
from ptq.numerics.pair_moves import move_pairs


def test_it_leaves_the_minimum_of_one_code_at_a_time():
    """ALGORITHMS D3: nearest, GPTQ and descent stay at 0.32; the optimum is 0.22."""
    gram = np.array([[[4.0, 3, 2], [3, 4, 3], [2, 3, 4]]])
    w, half = np.array([[[0.7, 0.8, -0.7]]]), np.full((1, 1, 1), 0.5)
    grid = Grid(half, np.zeros_like(half), -4, 3, np.empty((0, 3), int), 4)
    codes = descend(w, np.rint(w / half), gram, grid)
    assert output_errors(w, codes, grid, gram)[0, 0] == pytest.approx(0.32)
    found = move_pairs(w, codes, gram, grid, 1)
    np.testing.assert_array_equal(found, [[[2, 1, -1]]])
    assert output_errors(w, found, grid, gram)[0, 0] == pytest.approx(0.22)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), levels=st.booleans(), pairs=st.integers(1, 3))
def test_no_row_gets_worse(seed, levels, pairs):
    made = task(seed, groups=2)
    made = with_levels(made, [-3, -1, 0, 2]) if levels else made
    gram, grid = with_damping(made.moments, 0.01), made.nearest.grid
    found = move_pairs(made.w, made.nearest.codes, gram, grid, pairs)
    before, after = (output_errors(made.w, c, grid, gram) for c in (made.nearest.codes, found))
    assert np.all(after <= before * (1 + 1e-9))
    assert np.all((found >= grid.qmin) & (found <= grid.qmax))
    if levels:
        assert np.isin(found, [-3, -1, 0, 2]).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_of_two_columns_no_step_of_the_first_and_any_of_the_second_is_better(seed):
    made = task(seed, rows=1, columns=2)
    gram, grid, start = with_damping(made.moments, 0.01), made.nearest.grid, made.nearest.codes
    found = move_pairs(made.w, start, gram, grid, 1)
    least = output_errors(made.w, found, grid, gram)[0, 0]
    for change, second in product((1, -1), range(8)):
        other = np.array([[[np.clip(start[0, 0, 0] + change, 0, 7), second]]], float)
        # at the end of the grid, the step is none: then the second is left to descent
        if other[0, 0, 0] != start[0, 0, 0]:
            assert output_errors(made.w, other, grid, gram)[0, 0] >= least * (1 - 1e-9)


def test_the_most_correlated_pair_comes_first():
    """Only one pair is tried for two columns each: of four, the first two and then others."""
    gram = np.eye(4)[None].copy()
    gram[0, 2, 3] = gram[0, 3, 2] = 0.9
    w = np.full((1, 1, 4), 0.45)
    one = np.ones((1, 1, 1))
    grid = Grid(one, 0 * one, -4, 3, np.empty((0, 4), int), 4)
    found = move_pairs(w, np.zeros_like(w), gram, grid, 1)
    # (0.45, 0.45) at 0.9 costs 0.77 as it is, and 0.06 with one of both a step up
    assert sorted(found[0, 0, 2:]) == [0.0, 1.0]
    np.testing.assert_array_equal(found[0, 0, :2], [0.0, 0.0])
