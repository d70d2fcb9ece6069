"""What every rounding method promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounding import least_errors, task, with_levels

from ptq.numerics.gptq import with_damping
from ptq.rounders import ROUNDERS

METHODS = {name: ROUNDERS.make(name, {}) for name in ROUNDERS.methods()}

each = pytest.mark.parametrize("name", METHODS)

#: There are nine methods, some of sixty iterations, and every seed is as good as another.
few = settings(max_examples=5)

seeds = st.integers(0, 10**6)


def solved(name, made):
    return list(METHODS[name].solutions(made))


@each
@few
@given(seed=seeds, block=st.sampled_from([None, 2, 6]), bits=st.integers(2, 4))
def test_codes_are_those_of_the_grid_and_scales_those_of_blocks(name, seed, block, bits):
    made = task(seed, groups=2, bits=bits, block=block)
    for solution in solved(name, made):
        codes, grid = solution.codes, solution.grid
        assert codes.shape == made.w.shape
        assert np.array_equal(codes, np.rint(codes))
        assert codes.min() >= 0
        assert codes.max() < 2**bits
        assert np.array_equal(grid.zero_point, made.nearest.grid.zero_point)
        scale = np.broadcast_to(grid.scale, made.w.shape)
        if block is None:
            assert np.array_equal(scale, np.broadcast_to(made.nearest.grid.scale, scale.shape))
        assert np.all(scale > 0)
        assert np.array_equal(scale, scale.astype(np.float32))
        for start in range(0, 6, block or 6):
            assert np.all(np.ptp(scale[:, :, start : start + (block or 6)], axis=2) == 0)


@each
@few
@given(seed=seeds, free=st.booleans())
def test_codes_are_levels_where_there_are_some(name, seed, free):
    made = with_levels(task(seed, block=6), [-120, -30, 0, 20, 90], free=free)
    for solution in solved(name, made):
        levels = solution.grid.levels
        assert levels.shape == made.nearest.grid.levels.shape
        assert np.all(np.diff(levels, axis=2) >= 0)
        assert np.abs(levels).max() <= 127
        assert np.all((solution.codes[..., None] == levels[:, :, None]).any(axis=3))
        assert np.all((levels == 0).any(axis=2))
        if not free:
            assert np.array_equal(levels, made.nearest.grid.levels)


@each
@few
@given(seed=seeds)
def test_codes_that_are_bound_to_one_another_keep_their_bounds(name, seed):
    pairs = np.array([[1, 0, 3, 2, 5, 4], [-1, 2, 1, 4, 3, -1]])
    made = task(seed, groups=2)
    scale = np.abs(made.w).max(axis=2, keepdims=True) / 126
    bound = {"scale": scale, "zero_point": 0 * scale, "qmin": -128, "qmax": 127}
    made = task(seed, groups=2, grid={**bound, "partners": pairs, "limit": 128})
    # as with 8 bits: the first alone is looked at
    codes = next(METHODS[name].solutions(made)).codes
    for row in pairs:
        for here, there in enumerate(row):
            assert there < 0 or np.abs(codes[:, :, here] + codes[:, :, there]).max() <= 128
    assert np.all((codes >= -128) & (codes <= 127))


@each
@few
@given(seed=seeds)
def test_inputs_that_are_all_alike_and_independent_are_rounded_to_nearest(name, seed):
    made = task(seed, groups=2)
    made = replace(made, moments=3.0 * np.broadcast_to(np.eye(6), made.moments.shape))
    np.testing.assert_array_equal(solved(name, made)[0].codes, made.nearest.codes)


@each
def test_each_group_is_by_itself_and_the_same_each_time(name):
    made = task(7, groups=3, block=6)
    again = solved(name, made)
    for way, whole in enumerate(solved(name, made)):
        np.testing.assert_array_equal(again[way].codes, whole.codes)
        for g in range(3):
            part = slice(g, g + 1)
            on = replace(
                made.nearest.grid,
                scale=made.nearest.grid.scale[part],
                zero_point=made.nearest.grid.zero_point[part],
            )
            nearest = replace(made.nearest, codes=made.nearest.codes[part], grid=on)
            alone = replace(made, w=made.w[part], moments=made.moments[part], nearest=nearest)
            np.testing.assert_array_equal(solved(name, alone)[way].codes, whole.codes[part])


@each
def test_a_weight_without_inputs_and_one_column_are_no_trouble(name):
    made = task(0, columns=1, block=1)
    dead = replace(task(0, block=6), moments=np.zeros((1, 6, 6)))
    for solution in (*solved(name, made), *solved(name, dead)):
        assert np.isfinite(solution.grid.values(solution.codes)).all()


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"laq"}))
def test_free_scales_and_all_do_better_than_nearest_on_the_average(name):
    """Of LAQ, by its own measure, in `test_laq`: it does not see how inputs are correlated."""
    ratios = []
    for seed in range(8):
        made = task(seed, rows=4, columns=12, block=12)
        damped = with_damping(made.moments, made.damping)
        last = solved(name, made)[-1]
        ratios.append(last.errors(made.w, damped).sum() / made.nearest.errors(made.w, damped).sum())
    assert np.mean(ratios) < 0.7


def test_against_the_optimum_methods_come_in_the_order_that_was_measured():
    """Six inputs and 3 bits: nearest 2.58 times the least error, GPTQ 1.60, descent 1.50.

    Descent from GPTQ has 1.33 (ALGORITHMS D2 and D3). Other problems have other means, these 3.7,
    2.0, 1.7 and 1.4; the order is the same. The least is of codes next to the nearest.
    """
    made = task(1, groups=400, rows=1, damping=1e-6)
    least = least_errors(made)

    def mean(solution):
        return np.mean(solution.errors(made.w, made.moments)[:, 0] / least)

    def first(text):
        return mean(next(ROUNDERS.parse(text).solutions(made)))

    nearest, gptq, alone = mean(made.nearest), first("gptq"), first("cd:pairs=0")
    both = first("cd:pairs=0,start=gptq")
    assert both < alone < 0.6 * nearest
    assert both < 0.8 * gptq < 0.6 * nearest
    # two codes at a time leave some of the minima of one code at a time
    assert first("cd") < 0.85 * alone
    assert first("cd:start=gptq") < 0.9 * both
    assert max(first(name) for name in ("obq", "admm", "prox", "elq")) < 0.65 * nearest
