"""Scales of blocks against numpy's least squares on the data itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.numerics.gptq import Grid, output_errors
from ptq.numerics.refit import refit_scales


def problem(seed, *, columns=7, block=3):
    """Return data, weights, codes near them, and their grid."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 40, columns)) @ (rng.normal(size=(2, columns, columns)) + 1.0)
    w = rng.normal(size=(2, 3, columns))
    blocks = -(-columns // block)
    each = rng.uniform(0.3, 0.5, (2, 3, blocks))
    scale = np.repeat(each, block, axis=2)[:, :, :columns]
    zero_point = np.full(w.shape, 4.0)
    grid = Grid(scale, zero_point, 0, 8, np.empty((0, columns), int), 8)
    return x, w, np.clip(np.rint(w / scale + 4), 0, 8), grid


@given(seed=st.integers(0, 10**6), block=st.sampled_from([2, 3, 7, 16]))
def test_they_are_the_least_squares_of_the_output(seed, block):
    x, w, codes, grid = problem(seed, block=block)
    found = refit_scales(w, codes, x.transpose(0, 2, 1) @ x, grid, block)
    for g, r in np.ndindex(w.shape[:2]):
        steps = codes[g, r] - 4
        owner = np.arange(w.shape[2]) // block
        used = [b for b in range(owner[-1] + 1) if steps[owner == b].any()]
        made = np.stack([(x[g] * steps)[:, owner == b].sum(axis=1) for b in used], axis=1)
        best = np.linalg.lstsq(made, x[g] @ w[g, r], rcond=None)[0]
        old = np.array([grid.scale[g, r][owner == b][0] for b in used])
        new = np.array([found[g, r][owner == b][0] for b in used])
        if np.all((best <= 1.99 * old) & (best >= old / 1.99)):
            np.testing.assert_allclose(new, best, rtol=1e-5)  # they are kept as float32
        elif np.any((best > 2.01 * old) | (best < old / 2.01)):
            np.testing.assert_array_equal(found[g, r], grid.scale[g, r])


@given(seed=st.integers(0, 10**6))
def test_the_error_of_no_row_grows(seed):
    x, w, codes, grid = problem(seed)
    gram = x.transpose(0, 2, 1) @ x
    scale = refit_scales(w, codes, gram, grid, 3)
    fitted = Grid(scale, grid.zero_point, 0, 8, grid.partners, 8)
    before, after = (output_errors(w, codes, g, gram) for g in (grid, fitted))
    assert np.all(after <= before * (1 + 1e-6))


def test_a_block_at_the_zero_point_keeps_its_scale():
    x, w, codes, grid = problem(0)
    codes[:, :, :3] = 4
    scale = refit_scales(w, codes, x.transpose(0, 2, 1) @ x, grid, 3)
    assert scale[:, :, :3] == pytest.approx(grid.scale[:, :, :3], rel=1e-6)


def test_a_scale_stays_a_normal_number():
    x, w, codes, grid = problem(0)
    tiny = 2.0**-126
    least = Grid(tiny + 0 * grid.scale, grid.zero_point, 0, 8, grid.partners, 8)
    scale = refit_scales(w * 0.6 * tiny, codes, x.transpose(0, 2, 1) @ x, least, 3)
    assert np.all(scale.astype(np.float32) >= np.float32(tiny))
