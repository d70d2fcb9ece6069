import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.numerics.clip_search import search_clip

GRID = np.linspace(0.1, 1.0, 31)


def quadratic(best_lo, best_hi):
    return lambda lo, hi: (lo - best_lo) ** 2 + (hi - best_hi) ** 2 + 1


@given(st.floats(-1, -0.15), st.floats(0.15, 1))
def test_both_ends_are_found_where_they_are_independent(best_lo, best_hi):
    lo, hi = search_clip(
        np.array([-1.0]), np.array([1.0]), quadratic(best_lo, best_hi), GRID, separately=True
    )
    # A gain below 1e-4 of the loss, here about 1, is not taken: that is 0.01 of either end.
    assert lo[0] == pytest.approx(best_lo, abs=0.015)
    assert hi[0] == pytest.approx(best_hi, abs=0.015)


def test_every_channel_is_searched_by_itself():
    best = np.array([0.2, 0.5, 0.9])
    lo, hi = search_clip(
        -np.ones(3), np.ones(3), lambda lo, hi: (hi - best) ** 2, GRID, separately=False
    )
    # Three refinements by 4 of a grid step of 0.03, and the relative gain of 1e-4.
    assert hi == pytest.approx(best, abs=1e-3)
    assert lo == pytest.approx(-hi)


def test_of_equals_the_widest_is_kept():
    lo, hi = search_clip(
        np.array([-2.0]), np.array([3.0]), lambda lo, hi: np.ones(hi.shape), GRID, separately=True
    )
    assert (lo[0], hi[0]) == (-2.0, 3.0)


def test_a_narrow_dip_elsewhere_does_not_distract():
    def loss(lo, hi):
        return np.where(np.abs(hi - 0.31) < 0.01, 0.0, 1 + hi)

    hi = search_clip(np.array([0.0]), np.array([1.0]), loss, GRID, separately=False)[1]
    assert abs(hi[0] - 0.31) < 0.01
