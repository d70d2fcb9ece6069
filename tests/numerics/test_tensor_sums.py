"""Sums over a tensor and the codes in its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.errors import VerificationError
from ptq.numerics.affine import QParams, dequantize
from ptq.numerics.metrics import ErrorSums
from ptq.numerics.qtype import INT8, INT16, UINT8, UINT16
from ptq.numerics.tensor_sums import Codes, TensorSums

#: More than a block, and no multiple of one.
SIZE = 20_011


def pair(dtype, seed=0):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    codes = rng.integers(limits.min, limits.max, SIZE, dtype, endpoint=True)
    return rng.standard_normal(SIZE).astype(np.float32), codes


@pytest.mark.parametrize("qtype", [UINT8, INT8, UINT16, INT16])
def test_codes_are_compared_as_what_they_stand_for(qtype):
    ref, codes = pair(qtype.storage)
    scale, zero_point = np.float32(0.037), np.asarray(qtype.qmin + 77, qtype.storage)
    found = TensorSums.of(ref, codes, Codes(np.asarray(scale), zero_point))
    values = dequantize(codes, QParams(np.asarray(scale), zero_point, qtype))
    whole = ErrorSums.of(ref, values)
    assert found.errors.count == SIZE
    assert found.errors.sqnr_db == pytest.approx(whole.sqnr_db, rel=1e-12)
    assert found.errors.max_abs == whole.max_abs
    assert found.errors.mean_shift == pytest.approx(np.mean(values.astype(float) - ref), rel=1e-9)
    assert found.nonfinite == 0


def test_scales_for_each_channel_are_spread_along_their_axis():
    codes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    scale = np.array([1, 2, 3, 4], np.float32)
    params = Codes(scale, np.zeros(4, np.uint8), 1)
    found = TensorSums.of((codes * scale).astype(np.float32), codes, params)
    assert found.errors.noise == 0
    assert params.limits() is None
    assert found.clipped == 0


@given(st.lists(st.floats(-400, 400, width=32), min_size=1, max_size=30))
def test_clipped_is_what_rounds_to_no_code(values):
    ref = np.array(values, np.float32)
    params = Codes(np.asarray(0.5, np.float32), np.asarray(100, np.uint8))
    steps = ref.astype(np.float64) / 0.5 + 100
    clear = np.abs(steps - np.rint(steps)) < 0.498  # a tie may go either way
    codes = np.zeros(int(clear.sum()), np.uint8)
    found = TensorSums.of(ref[clear], codes, params)
    rounded = np.rint(steps[clear])
    assert found.clipped == np.count_nonzero((rounded < 0) | (rounded > 255))


@given(hnp.arrays(np.float32, 9, elements=st.floats(width=32)), st.integers(0, 9))
def test_what_is_not_finite_is_counted_once_and_left_out(out, cut):
    ref = np.ones(9, np.float32)
    ref[0] = np.inf
    found = TensorSums.of(ref[:cut], out[:cut], None) + TensorSums.of(ref[cut:], out[cut:], None)
    finite = np.isfinite(out[1:])
    assert found.nonfinite == np.count_nonzero(~finite)
    assert found.errors.count == np.count_nonzero(finite)
    assert np.isfinite(found.errors.noise)


def test_other_shapes_cannot_be_compared():
    with pytest.raises(VerificationError, match="shape"):
        TensorSums.of(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), None)
