import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.errors import VerificationError
from ptq.numerics.metrics import ErrorSums, cosine, max_abs_error, sqnr_db, topk_agreement

VALUES = hnp.arrays(np.float32, 12, elements=st.floats(-100, 100, width=32))


def f32(*values):
    return np.array(values, np.float32)


def test_sqnr_is_the_ratio_of_powers():
    # Signal 100, noise 1: 20 dB.
    assert sqnr_db(f32(10, 0), f32(10, 1)) == pytest.approx(20, abs=1e-12)


def test_equal_outputs_have_no_noise_even_if_zero():
    assert sqnr_db(f32(1, 2), f32(1, 2)) == math.inf
    assert sqnr_db(f32(0, 0), f32(0, 0)) == math.inf
    assert cosine(f32(3, 1, 7), f32(3, 1, 7)) == 1.0
    assert cosine(f32(0), f32(0)) == 1.0


def test_noise_without_signal():
    assert sqnr_db(f32(0, 0), f32(0, 1)) == -math.inf
    assert cosine(f32(0, 0), f32(0, 1)) == 0.0


def test_cosine_ignores_the_length():
    assert cosine(f32(1, 2), f32(2, 4)) == pytest.approx(1)
    assert cosine(f32(1, 2), f32(-1, -2)) == pytest.approx(-1)
    assert cosine(f32(1, 0), f32(0, 1)) == 0


def test_a_nan_is_not_hidden():
    sums = ErrorSums.of(f32(1, 2), f32(1, math.nan)) + ErrorSums.of(f32(1), f32(1))
    assert math.isnan(sums.sqnr_db)
    assert math.isnan(sums.cosine)
    assert math.isnan(sums.max_abs)
    reverse = ErrorSums.of(f32(1), f32(1)) + ErrorSums.of(f32(1), f32(math.nan))
    assert math.isnan(reverse.max_abs)


def test_an_infinite_output_is_the_worst():
    assert sqnr_db(f32(1, 2), f32(1, math.inf)) == -math.inf
    assert max_abs_error(f32(1, 2), f32(1, math.inf)) == math.inf


def test_no_outputs_have_no_error():
    sums = ErrorSums.of(f32(), f32())
    assert (sums.sqnr_db, sums.cosine, sums.max_abs, sums.rmse) == (math.inf, 1.0, 0.0, 0.0)


@given(VALUES, VALUES, st.integers(0, 12))
def test_sums_of_parts_are_sums_of_the_whole(ref, out, cut):
    whole = ErrorSums.of(ref, out)
    parts = ErrorSums.of(ref[:cut], out[:cut]) + ErrorSums.of(ref[cut:], out[cut:])
    assert (parts.count, parts.max_abs) == (whole.count, whole.max_abs)
    # Twelve float64 additions of numbers up to 4e4, some of which cancel in the dot product.
    for name in ("noise", "signal", "out_sq", "dot"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=1e-9)


@given(VALUES, VALUES)
def test_measures_agree_with_their_definitions(ref, out):
    sums = ErrorSums.of(ref, out)
    a, b = ref.astype(np.float64), out.astype(np.float64)
    assert sums.max_abs == np.max(np.abs(a - b))
    assert sums.rmse == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), rel=1e-12)
    assert -1 <= sums.cosine <= 1


def test_float32_outputs_are_summed_in_float64():
    # In float32 the square overflows.
    assert sqnr_db(f32(3e38), f32(2.97e38)) == pytest.approx(40, abs=1e-4)


def test_integer_outputs_are_compared_too():
    assert sqnr_db(np.array([10, 0]), np.array([10, 1])) == pytest.approx(20)


def test_topk_counts_rows():
    ref = f32(1, 9, 3, 5, 4, 0, 0, 1, 2).reshape(3, 3)
    out = f32(0, 8, 1, 4, 5, 0, 9, 8, 7).reshape(3, 3)
    assert topk_agreement(ref, out) == pytest.approx(1 / 3)
    assert topk_agreement(ref, out, k=2) == pytest.approx(2 / 3)
    assert topk_agreement(ref, out, k=3) == 1


def test_topk_takes_the_first_of_equals():
    assert topk_agreement(f32(1, 1, 0), f32(2, 2, 0)) == 1
    assert topk_agreement(f32(0, 1, 0), f32(2, 2, 0)) == 0


def test_topk_takes_nan_for_disagreement():
    assert topk_agreement(f32(0, 1), f32(0, math.nan)) == 0


def test_outputs_of_different_shape_are_refused():
    with pytest.raises(VerificationError, match="shapes"):
        ErrorSums.of(f32(1, 2), f32(1))
    with pytest.raises(VerificationError, match="shapes"):
        topk_agreement(f32(1, 2), f32(1))
    with pytest.raises(VerificationError, match="row"):
        topk_agreement(f32(), f32())
