"""k-means of numbers, against the optimum by dynamic programming."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.numerics.kmeans import k_means
from ptq.numerics.sorted_rows import count_below

inits = pytest.mark.parametrize("init", ["split", "linear"])


def nearest(values, levels):
    return levels[np.abs(values[:, None] - levels).argmin(axis=1)]


def error(values, levels):
    return float(((values - nearest(values, levels)) ** 2).sum())


def least_error(values, count):
    """Return the error of the best levels: each cluster of sorted values is a stretch of them."""
    n = len(values)
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (values, values**2))
    size = np.arange(n + 1) - np.arange(n + 1)[:, None]
    apart = (squares - squares[:, None]) - (sums - sums[:, None]) ** 2 / np.maximum(size, 1)
    of_stretch = np.where(size > 0, apart, np.where(size == 0, 0.0, np.inf))
    best = of_stretch[0]
    for _ in range(count - 1):
        best = (best[:, None] + of_stretch).min(axis=0)
    return float(best[-1])


def samples(draw):
    rng = np.random.default_rng(0)
    made = rng.laplace if draw == "laplace" else rng.standard_normal
    return np.sort(made(size=(30, 120)), axis=1)


@inits
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_levels_are_the_means_of_what_is_nearest_to_them(init, count):
    rows = samples("laplace")
    for values, levels in zip(rows, k_means(rows, count, init), strict=True):
        assert np.all(np.diff(levels) >= 0)
        taken = nearest(values, levels)
        for level in np.unique(taken):
            # A mean of running sums of 120 numbers of at most 10.
            assert values[taken == level].mean() == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize("draw", ["laplace", "normal"])
@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_clusters_that_are_split_end_near_the_optimum(draw, count):
    rows = samples(draw)
    found = [error(v, k) for v, k in zip(rows, k_means(rows, count, "split"), strict=True)]
    best = [least_error(v, count) for v in rows]
    ratios = np.array(found) / best
    # Never better; and a tenth worse on the geometric mean, where even levels end at up to twice.
    assert np.all(ratios >= 1 - 1e-9)
    assert np.exp(np.log(ratios).mean()) < 1.11


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.5, 3.0]), min_size=1, max_size=12))
def test_as_many_levels_as_values_are_exact(values):
    rows = np.sort(np.array([values]), axis=1)
    found = k_means(rows, 4, "split")[0]
    assert error(rows[0], found) == pytest.approx(0.0, abs=1e-24)


def test_rows_do_not_know_of_one_another():
    rows = samples("laplace")
    whole = k_means(rows, 8, "split")
    assert np.array_equal(whole[7:9], k_means(rows[7:9], 8, "split"))


@given(
    st.lists(st.integers(-3, 3), max_size=9),
    st.lists(st.integers(-4, 4), min_size=1, max_size=5),
    st.booleans(),
)
def test_counts_are_those_of_searchsorted(values, bounds, equal):
    rows = np.sort(np.array([values, values], np.float64), axis=1)
    asked = np.array([bounds, bounds[::-1]], np.float64)
    side = "right" if equal else "left"
    wanted = [np.searchsorted(r, b, side) for r, b in zip(rows, asked, strict=True)]
    assert np.array_equal(count_below(rows, asked, equal=equal), wanted)
