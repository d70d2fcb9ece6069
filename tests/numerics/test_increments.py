"""Increments: shares that are fixed, and the rest against least squares."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounding import task

from ptq.numerics.gptq import with_damping
from ptq.numerics.increments import _made_up, round_by_increments


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_what_is_free_makes_up_for_what_is_not(seed):
    made = task(seed, groups=2)
    gram = with_damping(made.moments, 0.01)
    rng = np.random.default_rng(seed)
    free, lost = rng.random(made.w.shape) < 0.5, rng.normal(size=made.w.shape)
    found = _made_up(lost, free, gram)
    np.testing.assert_array_equal(found[~free], lost[~free])
    for g, r in np.ndindex(2, 3):
        part = free[g, r]
        if part.any():
            aim = -gram[g][np.ix_(part, ~part)] @ lost[g, r, ~part]
            want = np.linalg.solve(gram[g][np.ix_(part, part)], aim)
            # conjugate gradients of at most six unknowns, in 24 steps
            np.testing.assert_allclose(found[g, r, part], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", ["loss", "magnitude"])
def test_shares_are_half_of_what_is_left(order, monkeypatch):
    seen = []

    def spy(lost, free, gram):
        seen.append(free.copy())
        return _made_up(lost, free, gram)

    monkeypatch.setattr("ptq.numerics.increments._made_up", spy)
    made = task(0, groups=2, columns=16)
    round_by_increments(
        made.w, made.moments, made.nearest.grid, damping=0.01, stages=4, order=order
    )
    assert [set(free.sum(axis=2).ravel()) for free in seen] == [{8}, {4}, {2}]
    for before, after in pairwise(seen):
        assert not np.any(after & ~before)  # what is rounded stays so
    if order == "magnitude":
        size = np.abs(made.w)
        assert np.all(np.where(seen[0], size, 0).max(axis=2) <= np.where(seen[0], 9, size).min(2))


def test_one_stage_is_rounding_to_nearest_and_more_are_better_on_the_average():
    made = task(0, groups=60, columns=12)
    errors = [
        made.nearest.grid.values(
            round_by_increments(
                made.w, made.moments, made.nearest.grid, damping=0.01, stages=n, order="loss"
            )
        )
        - made.w
        for n in (1, 2, 4)
    ]
    np.testing.assert_array_equal(errors[0], made.nearest.grid.values(made.nearest.codes) - made.w)
    one, two, four = (np.einsum("grc,gcd,grd->", e, made.moments, e) for e in errors)
    assert four < two < 0.9 * one
