import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.errors import CalibrationError
from ptq.numerics.affine import (
    QParams,
    QTensor,
    dequantize,
    exponent_limits,
    exponent_of_range,
    fake_quantize,
    qparams_from_range,
    qparams_power_of_two,
    quantize,
)
from ptq.numerics.qtype import INT8, INT8_NARROW, INT16, UINT4, UINT8, QType

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
QTYPES = st.builds(QType, st.integers(1, 16), signed=st.booleans())
F32_MAX = np.finfo(np.float32).max
F32_TINY = np.finfo(np.float32).tiny


@st.composite
def quantizers(draw):
    ends = sorted(draw(st.tuples(FINITE, FINITE)))
    return qparams_from_range(*ends, draw(QTYPES), symmetric=draw(st.booleans()))


@given(quantizers())
def test_scales_are_normal_and_all_codes_stand_for_finite_values(params):
    assert F32_TINY <= params.scale <= F32_MAX
    codes = np.array([params.qtype.qmin, params.qtype.qmax], params.qtype.storage)
    assert np.all(np.isfinite(dequantize(codes, params)))


@given(quantizers(), hnp.arrays(np.float32, 20, elements=FINITE))
def test_quantizing_what_is_quantized_changes_nothing(params, x):
    once = fake_quantize(x, params)
    assert fake_quantize(once, params).tobytes() == once.tobytes()


@given(quantizers(), hnp.arrays(np.float32, 20, elements=FINITE))
def test_quantizing_keeps_the_order(params, x):
    assert np.all(np.diff(quantize(np.sort(x), params).astype(int)) >= 0)


@given(quantizers())
def test_zero_stays_zero(params):
    assert fake_quantize(np.zeros(1, np.float32), params)[0] == 0


@given(quantizers(), hnp.arrays(np.float32, 20, elements=FINITE))
def test_the_error_inside_the_range_is_at_most_half_a_step(params, x):
    lo, hi = params.range()
    inside = np.clip(x, lo, hi)
    error = np.abs(fake_quantize(inside, params).astype(np.float64) - inside)
    # Two roundings to float32, of the quotient and of the product, each by 2^-24 of |x|.
    slack = np.abs(inside.astype(np.float64)) * 2**-22
    assert np.all(error <= float(params.scale) / 2 + slack)


@given(
    st.tuples(
        st.floats(-1e6, 1e6, width=32),
        st.floats(-1e6, 1e6, width=32),
    ).filter(lambda ends: max(map(abs, ends)) > 1e-6),
    st.integers(-20, 20),
    QTYPES,
    st.booleans(),
)
def test_a_power_of_two_scales_the_scale_and_nothing_else(ends, power, qtype, symmetric):
    lo, hi = sorted(ends)
    factor = 2.0**power
    one = qparams_from_range(lo, hi, qtype, symmetric=symmetric)
    other = qparams_from_range(lo * factor, hi * factor, qtype, symmetric=symmetric)
    if max(abs(min(lo, 0)), max(hi, 0)) > 0:
        assert other.scale == one.scale * np.float32(factor)
    assert other.zero_point == one.zero_point


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("qtype", [INT8, INT8_NARROW, UINT8, UINT4, INT16])
def test_the_range_of_zeros_has_scale_one(qtype, symmetric):
    params = qparams_from_range(0.0, 0.0, qtype, symmetric=symmetric)
    assert params.scale == 1
    assert fake_quantize(np.zeros(3, np.float32), params).tolist() == [0, 0, 0]


@pytest.mark.parametrize("qtype", [INT8, UINT8])
def test_an_asymmetric_range_covers_its_ends(qtype):
    params = qparams_from_range(-1.0, 3.0, qtype, symmetric=False)
    lo, hi = params.range()
    # Moving the zero point to a whole code shifts the range by up to half a step.
    assert lo <= -1.0 + params.scale / 2
    assert hi >= 3.0 - params.scale / 2


def test_a_range_of_one_sign_begins_at_zero():
    params = qparams_from_range(2.0, 6.0, UINT8, symmetric=False)
    assert params.zero_point == 0
    assert params.scale == np.float32(6 / 255)


def test_symmetric_zero_points_are_in_the_middle():
    assert qparams_from_range(-1, 5, INT8, symmetric=True).zero_point == 0
    unsigned = qparams_from_range(-1, 5, UINT8, symmetric=True)
    assert unsigned.zero_point == 128
    assert unsigned.scale == np.float32(5 / 127)


def test_a_range_wider_than_float32_is_taken_in_float64():
    params = qparams_from_range(-F32_MAX, F32_MAX, UINT8, symmetric=False)
    x = np.array([-F32_MAX, 0, F32_MAX], np.float32)
    # The scale is cut so that -128 steps are still finite; 127 of them then reach 127/128.
    assert fake_quantize(x, params) == pytest.approx(x, rel=1 / 64)


def test_a_range_of_subnormals_gets_the_smallest_normal_scale():
    params = qparams_from_range(0, 1e-42, UINT8, symmetric=False)
    assert params.scale == F32_TINY
    assert fake_quantize(np.array([1e-42], np.float32), params)[0] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_range_that_is_not_finite_is_refused(bad):
    with pytest.raises(CalibrationError, match="not finite"):
        qparams_from_range(-1.0, bad, INT8, symmetric=True)


def test_an_empty_range_is_refused():
    with pytest.raises(CalibrationError, match="empty"):
        qparams_from_range(1.0, -1.0, INT8, symmetric=True)


def test_channels_are_independent():
    lo, hi = np.array([-1.0, 0.0, -3.0]), np.array([1.0, 0.0, 6.0])
    params = qparams_from_range(lo, hi, INT8, symmetric=False, axis=1)
    for i in range(3):
        alone = qparams_from_range(lo[i], hi[i], INT8, symmetric=False)
        assert (params.scale[i], params.zero_point[i]) == (alone.scale, alone.zero_point)


def test_channels_may_be_counted_from_the_end():
    w = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    hi = w.max(axis=(0, 2))
    last, first = (
        qparams_from_range(0 * hi, hi, UINT8, symmetric=False, axis=axis) for axis in (-2, 1)
    )
    assert np.array_equal(quantize(w, last), quantize(w, first))


def test_saturation_does_not_overflow():
    params = qparams_from_range(0, 1e-30, INT8, symmetric=False)
    x = np.array([3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
    assert quantize(x, params).tolist() == [127, -128, 127, -128, -128]


def test_a_tensor_without_a_dimension_can_be_quantized():
    params = qparams_from_range(0, 255, UINT8, symmetric=False)
    codes = quantize(np.array(7.5, np.float32), params)
    assert (codes.shape, codes.dtype, int(codes)) == ((), np.uint8, 8)
    assert QTensor(codes, params).dequantize() == np.float32(8)


def test_a_block_shares_a_scale_and_the_last_may_be_short():
    scale = np.array([[1.0, 10.0, 100.0]], np.float32)
    params = QParams(scale, np.zeros((1, 3), np.int8), INT8, axis=1, block_size=2)
    x = np.array([[3, 4, 30, 40, 300]], np.float32)
    assert quantize(x, params).tolist() == [[3, 4, 3, 4, 3]]
    assert fake_quantize(x, params).tolist() == x.tolist()


def test_scales_that_do_not_fit_the_tensor_are_refused():
    params = qparams_from_range(np.zeros(3), np.ones(3), UINT8, symmetric=False, axis=0)
    with pytest.raises(ValueError, match="3 scales for axis 0"):
        quantize(np.zeros((4, 3), np.float32), params)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-45, np.inf, np.nan])
def test_a_scale_that_cannot_divide_is_refused(scale):
    with pytest.raises(CalibrationError, match="scale"):
        QParams(np.array(scale, np.float32), np.array(0, np.int8), INT8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": np.array(1.0)},
        {"zero_point": np.array(0, np.uint8)},
        {"zero_point": np.zeros(2, np.int8)},
        {"axis": 0},
        {"qtype": INT8_NARROW, "zero_point": np.array(-128, np.int8)},
        {"scale": np.ones((1, 2), np.float32), "zero_point": np.zeros((1, 2), np.int8), "axis": 0},
    ],
)
def test_inconsistent_parameters_are_refused(wrong):
    right = {
        "scale": np.array(1.0, np.float32),
        "zero_point": np.array(0, np.int8),
        "qtype": INT8,
    }
    with pytest.raises(ValueError):
        QParams(**{**right, **wrong})


@given(QTYPES, st.data())
def test_a_power_of_two_is_exact_and_can_be_read_off_the_range(qtype, data):
    n = data.draw(st.integers(*exponent_limits(qtype)))
    params = qparams_power_of_two(n, qtype)
    assert float(params.scale) == 2.0**-n
    assert params.zero_point == (0 if qtype.signed else 2 ** (qtype.bits - 1))
    lo, hi = params.range()
    assert np.isfinite(lo)
    assert np.isfinite(hi)
    assert exponent_of_range(-(2.0 ** (qtype.bits - 1 - n)), qtype) == n


@pytest.mark.parametrize("n", [-121, 127])
def test_a_power_of_two_beyond_float32_is_refused(n):
    with pytest.raises(CalibrationError, match="power-of-two"):
        qparams_power_of_two(n, INT8)


def test_other_ranges_are_not_powers_of_two():
    with pytest.raises(CalibrationError, match="power of two"):
        exponent_of_range(-3.0, INT8)
