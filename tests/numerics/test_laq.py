"""Codes and scales by the diagonal against published numbers and every choice of codes."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounding import task, with_levels

from ptq.numerics.diagonal import scaled
from ptq.numerics.laq import fit_diagonal
from ptq.numerics.projection import nearest_codes
from ptq.numerics.solutions import Solution

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())

EQUAL, WEIGHED = np.ones(8), np.array(VECTORS["lab_weighted"]["d"])


def fitted(w, counts, levels):
    """Return what one row comes to: values, and the scale of its codes."""
    made = with_levels(task(0, rows=1, columns=len(w)), levels)
    made = replace(made, w=np.array([[w]]))
    start = Solution(nearest_codes(made.w, made.nearest.grid), made.nearest.grid)
    found = fit_diagonal(made.w, counts[None, None], start, len(w))
    return found.grid.values(found.codes)[0, 0], found.grid.scale[0, 0, 0]


@pytest.mark.parametrize(
    ("case", "counts", "levels"),
    [
        ("bwn", EQUAL, [-1, 1]),
        ("lab_weighted", WEIGHED, [-1, 1]),
        ("twn_exact", EQUAL, [-1, 0, 1]),
        ("late_exact_weighted", WEIGHED, [-1, 0, 1]),
        ("late_exact_weighted", WEIGHED, [-7, 0, 7]),
    ],
)
def test_published_numbers_come_out(case, counts, levels):
    w, want = np.array(VECTORS["inputs"]["w"]), VECTORS[case]
    values, scale = fitted(w, counts, levels)
    assert scale * max(levels) == pytest.approx(want["alpha"], rel=1e-6)  # kept as float32
    if "keep" in want:
        assert np.count_nonzero(values) == want["keep"]
    error = float((counts * (w - values) ** 2).sum())
    if "mse" in want:
        assert error / 8 == pytest.approx(want["mse"], rel=1e-5)
    if "weighted_err" in want:
        assert error == pytest.approx(want["weighted_err"], rel=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([[-1, 1], [-1, 0, 1]]))
def test_signs_are_the_best_of_all(seed, levels):
    """Of every choice of codes, each with its best scale."""
    rng = np.random.default_rng(seed)
    w, counts = rng.normal(size=5), rng.uniform(0.1, 4, 5)
    values, _ = fitted(w, counts, levels)
    codes = np.array([c for c in product(levels, repeat=5) if any(c)], float)
    alpha = (codes * counts * w).sum(axis=1) / (codes**2 * counts).sum(axis=1)
    least = (counts * (w - alpha[:, None] * codes) ** 2).sum(axis=1).min()
    assert (counts * (w - values) ** 2).sum() == pytest.approx(least, rel=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), block=st.sampled_from([2, 4, 6]))
def test_with_more_codes_no_block_gets_worse(seed, block):
    made = task(seed, groups=2)
    counts = np.diagonal(made.moments, axis1=1, axis2=2)[:, None]
    found = fit_diagonal(made.w, counts, made.nearest, block)
    starts = np.arange(0, 6, block)
    before, after = (
        np.add.reduceat(counts * (s.grid.values(s.codes) - made.w) ** 2, starts, axis=2)
        for s in (made.nearest, found)
    )
    assert np.all(after <= before * (1 + 1e-6) + 1e-12)
    np.testing.assert_array_equal(found.codes, nearest_codes(made.w, found.grid))


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), block=st.sampled_from([2, 4, 6]))
def test_scales_are_the_least_squares_of_each_block(seed, block):
    made = task(seed, rows=1)
    grid, codes = made.nearest.grid, made.nearest.codes
    counts = np.random.default_rng(seed).uniform(0.1, 3, (1, 1, 6))
    found = scaled(grid, made.w, codes, counts, block).scale[0, 0]
    for start in range(0, 6, block):
        part = slice(start, start + block)
        q = (codes - grid.zero_point)[0, 0, part] * np.sqrt(counts[0, 0, part])
        want = np.linalg.lstsq(q[:, None], made.w[0, 0, part] * np.sqrt(counts[0, 0, part]))[0][0]
        if want > 1e-6:
            np.testing.assert_allclose(found[part], want, rtol=1e-5)
        else:
            np.testing.assert_array_equal(found[part], grid.scale[0, 0, 0])


def test_a_row_of_zeros_keeps_its_scale():
    values, scale = fitted(np.zeros(4), np.ones(4), [-1, 0, 1])
    assert scale == with_levels(task(0, rows=1, columns=4), [-1, 0, 1]).nearest.grid.scale[0, 0, 0]
    np.testing.assert_array_equal(values, np.zeros(4))
