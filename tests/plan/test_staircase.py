"""Levels as codes, against what numpy makes of the real values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ptq.calib.levels import Levels
from ptq.numerics.affine import dequantize, qparams_from_range, quantize
from ptq.numerics.qtype import UINT8
from ptq.plan.staircase import coded, looked_up

LEVELS = st.lists(st.floats(-5, 5).filter(lambda v: abs(v) > 1e-3), min_size=1, max_size=15)


def grid(levels):
    return qparams_from_range(levels.lo, levels.hi, UINT8, symmetric=False)


@given(LEVELS)
def test_codes_become_what_their_values_become(given_levels):
    levels = Levels.nearest([*given_levels, 0.0])
    params = grid(levels)
    codes, starts = coded(levels, params)
    assert list(codes) == sorted(set(codes))
    assert len(starts) == len(codes) - 1
    all_ = np.arange(256, dtype=np.uint8)
    became = looked_up(all_, codes, starts)
    wanted = quantize(
        levels(dequantize(all_, params).astype(np.float64)).astype(np.float32), params
    )
    np.testing.assert_array_equal(became, wanted)


@given(LEVELS)
def test_zero_stays_and_levels_are_half_a_step_off_at_most(given_levels):
    levels = Levels.nearest([*given_levels, 0.0])
    params = grid(levels)
    codes, starts = coded(levels, params)
    zero = int(params.zero_point)
    assert looked_up(np.array([zero]), codes, starts) == zero
    step = float(params.scale)
    off = np.abs(np.subtract.outer((np.array(codes) - zero) * step, levels.values)).min(axis=1)
    assert np.all(off <= step * 0.5001)


def test_all_that_is_positive_becomes_the_first_level():
    levels = Levels.of(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.5]))
    codes, starts = coded(levels, qparams_from_range(0.0, 2.0, UINT8, symmetric=False))
    # in float32 a step is a little more than 2 / 255: 1 is less than 127.5 of them
    assert codes == (0, 127, 255)
    assert starts == (1, 192)


def test_levels_of_one_code_are_one():
    levels = Levels.nearest([0.0, 1e-9, 1.0])
    codes, starts = coded(levels, qparams_from_range(0.0, 1.0, UINT8, symmetric=False))
    assert codes == (0, 255)
    assert starts == (128,)
