"""Levels of codebooks against numpy's least squares on the data; no step makes any row worse."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounding import task, with_levels

from ptq.numerics.descent import descend
from ptq.numerics.gptq import with_damping
from ptq.numerics.level_fit import integer_levels, lloyd, refit_codebook, refit_levels
from ptq.numerics.levels import nearest_index
from ptq.numerics.projection import nearest_codes
from ptq.numerics.solutions import Solution

LEVELS = [-120.0, -35.0, 0.0, 20.0, 90.0]

seeds = st.integers(0, 10**6)

few = settings(max_examples=20)


def made_of(seed, levels=LEVELS):
    """Return weights of about a hundred steps, on levels that are free."""
    made = task(seed, groups=2, columns=12, block=12)
    scale = np.full((2, 3, 1), np.float32(0.02), float)
    grid = replace(made.nearest.grid, scale=scale)
    return with_levels(replace(made, nearest=Solution(made.nearest.codes, grid)), levels, free=True)


@few
@given(seed=seeds, levels=st.sampled_from([LEVELS, [-100.0, -20.0, 30.0, 100.0]]))
def test_levels_are_the_least_squares_of_the_output(seed, levels):
    made = made_of(seed, levels)
    damped, w = with_damping(made.moments, 0.05), made.w / made.nearest.grid.scale
    index = nearest_index(w, made.nearest.grid.levels)
    found = refit_levels(w, index, damped, made.nearest.grid.levels)
    for g, r in np.ndindex(2, 3):
        root = np.linalg.cholesky(damped[g]).T  # of which the squares are the damped sums
        used = [v for v in range(len(levels)) if np.any(index[g, r] == v) and levels[v] != 0]
        has = (index[g, r][:, None] == used).astype(float)
        want = np.linalg.lstsq(root @ has, root @ w[g, r], rcond=None)[0]
        np.testing.assert_allclose(found[g, r, used], want, rtol=1e-6, atol=1e-6)
        others = [v for v in range(len(levels)) if v not in used]
        np.testing.assert_array_equal(found[g, r, others], np.array(levels)[others])


@few
@given(seed=seeds, rounds=st.integers(1, 3))
def test_no_step_makes_any_row_worse(seed, rounds):
    """From the start to levels, from these to codes, and more rounds from fewer."""
    made = made_of(seed)
    damped, w, start = with_damping(made.moments, 0.05), made.w, made.nearest
    index = nearest_index(start.codes, start.grid.levels)
    levels = refit_levels(w / start.grid.scale, index, damped, start.grid.levels)
    codes = np.take_along_axis(levels, index, axis=2)
    refit = Solution(codes, replace(start.grid, levels=np.sort(levels, axis=2)))
    moved = Solution(descend(w, codes, damped, refit.grid), refit.grid)
    again = refit_codebook(w, start, damped, rounds)
    errors = [s.errors(w, damped) for s in (start, refit, moved, again)]
    for before, after in pairwise(errors):
        assert np.all(after <= before * (1 + 1e-9))


@few
@given(seed=seeds)
def test_weighted_k_means_makes_no_row_worse_and_ends_where_it_is_one(seed):
    made = made_of(seed)
    counts = np.diagonal(made.moments, axis1=1, axis2=2)[:, None]
    grid = made.nearest.grid
    w = made.w / grid.scale
    found = lloyd(w, grid.levels, counts)
    assert np.all(np.diff(found, axis=2) >= 0)
    assert np.all((found == 0).any(axis=2))
    on = [replace(grid, levels=levels) for levels in (grid.levels, found)]
    before, after = ((counts * (nearest_codes(made.w, g) - w) ** 2).sum(axis=2) for g in on)
    assert np.all(after <= before * (1 + 1e-9))
    index = nearest_index(w, found)
    for g, r in np.ndindex(2, 3):
        for level in range(5):
            mine = index[g, r] == level
            if mine.any() and found[g, r, level] != 0:
                mean = np.average(w[g, r, mine], weights=counts[g, 0, mine])
                assert found[g, r, level] == pytest.approx(mean)


@few
@given(seed=seeds, saturating=st.booleans())
def test_integers_are_near_and_within_what_kernels_take(seed, saturating):
    made = made_of(seed)
    start = refit_codebook(made.w, made.nearest, with_damping(made.moments, 0.05), 1)
    partners = np.full((1, 12), -1) if saturating else np.empty((0, 12), int)
    start = Solution(start.codes, replace(start.grid, partners=partners, limit=128))
    found = integer_levels(start)
    most = 64 if saturating else 127
    levels = found.grid.levels
    assert np.array_equal(levels, np.rint(levels))
    assert most // 2 < np.abs(levels).max(axis=2).min()
    assert np.abs(levels).max() <= most
    lost = found.grid.values(found.codes) - start.grid.values(start.codes)
    assert np.all(np.abs(lost) <= 0.5 * found.grid.scale * (1 + 1e-6))
    assert np.all(found.codes[start.codes == 0] == 0)


def test_rows_are_worked_on_a_few_at_a_time(monkeypatch):
    made = made_of(0)
    damped, levels = with_damping(made.moments, 0.05), made.nearest.grid.levels
    index = nearest_index(made.nearest.codes, levels)
    whole = refit_levels(made.w, index, damped, levels)
    monkeypatch.setattr("ptq.numerics.level_fit._AT_ONCE", 1)
    np.testing.assert_allclose(refit_levels(made.w, index, damped, levels), whole, rtol=1e-12)
