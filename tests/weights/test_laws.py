"""What every weight quantizer with a uniform grid promises; see test_codebooks for the others."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.errors import CalibrationError
from ptq.numerics.affine import fake_quantize
from ptq.numerics.qtype import INT2, INT4, INT8, INT16, UINT8
from ptq.weights import weight_quantizer, weight_quantizers

QTYPES = st.sampled_from([INT2, INT4, INT8, UINT8, INT16])
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ORDINARY = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 1.0, -1.0]))
AXES = st.sampled_from([None, 0, 1, 2, -1])

#: A law holds however finely a method searches, and examples are many.
QUICK = {"mse": {"steps": 4}}

UNIFORM = [name for name, method in weight_quantizers().items() if method.uniform]

every_quantizer = pytest.mark.parametrize("name", UNIFORM)

#: There are many methods, and each law is tried of every one.
fewer = settings(max_examples=settings.default.max_examples // 2)


def weights(elements):
    return hnp.arrays(np.float32, st.tuples(*[st.integers(1, 5)] * 3), elements=elements)


@st.composite
def quantized(draw, name, elements=FINITE):
    w = draw(weights(elements))
    axis = draw(AXES)
    tensor = weight_quantizer(name, **QUICK.get(name, {})).quantize(
        w, draw(QTYPES), axis=axis, symmetric=draw(st.booleans())
    )
    return w, axis, tensor


@every_quantizer
@fewer
@given(data=st.data())
def test_codes_and_parameters_have_their_types_and_shapes(name, data):
    w, axis, tensor = data.draw(quantized(name))
    params = tensor.qparams
    assert tensor.codes.shape == w.shape
    assert tensor.codes.dtype == params.zero_point.dtype == params.qtype.storage
    assert params.scale.shape == (() if axis is None else (w.shape[axis],))
    assert params.axis == (None if axis is None else axis % 3)
    assert tensor.codes.min() >= params.qtype.qmin
    assert tensor.codes.max() <= params.qtype.qmax
    assert np.all(np.isfinite(tensor.dequantize()))


@every_quantizer
@fewer
@given(data=st.data())
def test_1_quantizing_again_with_the_same_parameters_changes_nothing(name, data):
    tensor = data.draw(quantized(name))[2]
    once = tensor.dequantize()
    assert fake_quantize(once, tensor.qparams).tobytes() == once.tobytes()


@every_quantizer
@fewer
@given(data=st.data())
def test_2_order_is_kept_within_a_channel(name, data):
    w, axis, tensor = data.draw(quantized(name))

    def rows(values):
        moved = values[None] if axis is None else np.moveaxis(values, axis, 0)
        return moved.reshape(len(moved), -1)

    order = np.argsort(rows(w), axis=1)
    codes = np.take_along_axis(rows(tensor.codes.astype(int)), order, axis=1)
    assert np.all(np.diff(codes, axis=1) >= 0)


@every_quantizer
@fewer
@given(data=st.data())
def test_3_zero_stays_zero(name, data):
    w, _, tensor = data.draw(quantized(name, ORDINARY))
    assert np.all(tensor.dequantize()[w == 0] == 0)


@every_quantizer
@fewer
@given(
    w=weights(ORDINARY),
    power=st.integers(-20, 20),
    qtype=QTYPES,
    axis=AXES,
    symmetric=st.booleans(),
)
def test_4_a_power_of_two_scales_the_scale_and_keeps_the_codes(
    name, w, power, qtype, axis, symmetric
):
    # All of it normal and far from the least scale, or bits are lost.
    assume(np.all((w == 0) | (np.abs(w) > 1e-20)))
    assume(np.any(w))
    factor = np.float32(2.0**power)
    quantizer = weight_quantizer(name, **QUICK.get(name, {}))
    one, other = (
        quantizer.quantize(v, qtype, axis=axis, symmetric=symmetric) for v in (w, w * factor)
    )
    assert np.array_equal(one.codes, other.codes)
    assert np.array_equal(one.qparams.scale * factor, other.qparams.scale)


@every_quantizer
@fewer
@given(data=st.data())
def test_5_the_error_inside_the_range_is_at_most_half_a_step(name, data):
    w, axis, tensor = data.draw(quantized(name))
    spread = [1] * 3
    if axis is not None:
        spread[axis] = -1
    lo, hi = (end.reshape(spread) for end in tensor.qparams.range())
    inside = (lo <= w) & (w <= hi)
    with np.errstate(over="ignore"):
        error = np.abs(tensor.dequantize().astype(np.float64) - w)
    # The quotient and the product are rounded to float32.
    slack = np.abs(w.astype(np.float64)) * 2**-22
    half = tensor.qparams.scale.astype(np.float64).reshape(spread) / 2
    assert np.all((error <= half + slack) | ~inside)


@every_quantizer
@pytest.mark.parametrize("symmetric", [True, False])
def test_6_a_dead_channel_has_a_usual_scale(name, symmetric):
    w = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    w[[1, 3]] = 0
    tensor = weight_quantizer(name).quantize(w, INT8, axis=0, symmetric=symmetric)
    scale = tensor.qparams.scale
    alive = scale[[0, 2, 4]]
    assert scale[1] == scale[3] == np.sort(alive)[1]
    assert np.all(tensor.dequantize()[[1, 3]] == 0)


@every_quantizer
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, 0])
def test_6_zeros_alone_have_scale_one(name, symmetric, axis):
    w = np.zeros((3, 4), np.float32)
    tensor = weight_quantizer(name).quantize(w, INT8, axis=axis, symmetric=symmetric)
    assert np.all(tensor.qparams.scale == 1)
    assert np.all(tensor.dequantize() == 0)


@every_quantizer
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [1.0, -3.0, 1e-30, 1e30])
def test_6_a_constant_is_nearly_exact(name, symmetric, value):
    w = np.full((2, 3), value, np.float32)
    tensor = weight_quantizer(name).quantize(w, INT8, axis=0, symmetric=symmetric)
    # Exact but for float32 where the scale follows the value; a power of two is within a step.
    close = 1 / 127 if name == "qcode" else 1e-6
    assert tensor.dequantize() == pytest.approx(w, rel=close)


@every_quantizer
def test_6_one_weight_and_no_weight(name):
    quantizer = weight_quantizer(name)
    one = quantizer.quantize(np.array([[2.0]], np.float32), INT8, axis=0, symmetric=True)
    assert one.codes.shape == (1, 1)
    for shape in ((0, 3), (3, 0)):
        for axis in (None, 0):
            none = quantizer.quantize(np.zeros(shape, np.float32), INT8, axis=axis, symmetric=True)
            assert none.codes.shape == shape
            assert np.all(none.qparams.scale == 1)


@every_quantizer
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_6_a_weight_that_is_not_finite_is_refused(name, bad):
    w = np.array([[1.0, bad]], np.float32)
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        weight_quantizer(name).quantize(w, INT8, axis=0, symmetric=True)


@pytest.mark.parametrize("name", sorted({*UNIFORM} - {"qcode"}))
@fewer
@given(w=weights(ORDINARY), bits=st.sampled_from([INT2, INT4, INT8]))
def test_symmetric_codes_leave_out_the_lowest(name, w, bits):
    quantizer = weight_quantizer(name, **QUICK.get(name, {}))
    tensor = quantizer.quantize(w, bits, axis=0, symmetric=True)
    assert tensor.codes.min() >= -bits.qmax
    assert np.all(tensor.qparams.zero_point == 0)
    assert tensor.qparams.qtype.name == bits.name


@pytest.mark.parametrize("name", sorted({*UNIFORM} - {"qcode"}))
def test_asymmetric_codes_use_the_whole_of_int8(name):
    w = np.linspace(-1, 3, 1001, dtype=np.float32)[None]
    tensor = weight_quantizer(name).quantize(w, INT8, axis=0, symmetric=False)
    assert tensor.codes.dtype == np.int8
    assert (tensor.codes.min(), tensor.codes.max()) == (-128, 127)
    assert tensor.qparams.zero_point[0] == -64


@every_quantizer
def test_channels_are_independent_and_the_layout_does_not_matter(name):
    w = np.random.default_rng(0).laplace(size=(4, 3, 5)).astype(np.float32)
    quantizer = weight_quantizer(name)
    whole = quantizer.quantize(w, INT4, axis=1, symmetric=True)
    turned = quantizer.quantize(w.transpose(1, 2, 0), INT4, axis=0, symmetric=True)
    assert np.array_equal(whole.codes.transpose(1, 2, 0), turned.codes)
    alone = quantizer.quantize(w[:, 1], INT4, axis=None, symmetric=True)
    assert np.array_equal(whole.codes[:, 1], alone.codes)


@pytest.mark.parametrize("name", weight_quantizers())
def test_every_quantizer_says_what_it_does_and_whence_it_comes(name):
    quantizer = weight_quantizers()[name]
    assert quantizer.title.endswith(".")
    assert quantizer.paper
