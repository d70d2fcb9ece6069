"""What every weight quantizer with levels of its own promises."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.errors import CalibrationError, ConfigError
from ptq.numerics.qtype import QType
from ptq.weights import weight_quantizer, weight_quantizers

CODEBOOKS = {name: method for name, method in weight_quantizers().items() if not method.uniform}

#: There are many methods.
few = settings(max_examples=20)

each = pytest.mark.parametrize("name", CODEBOOKS)

ORDINARY = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 1.0, -1.0]))


def widths(name):
    method = CODEBOOKS[name]
    return range(method.least_bits, min(method.most_bits, 5) + 1)


def grid(bits):
    return QType(bits, signed=True)


@st.composite
def cases(draw, name):
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    w = draw(hnp.arrays(np.float32, shape, elements=ORDINARY))
    return w, draw(st.sampled_from([None, 0, 1, -1])), draw(st.sampled_from(widths(name)))


def quantized(name, w, axis, bits):
    return weight_quantizer(name).quantize(w, grid(bits), axis=axis, symmetric=True)


def rows(values, axis):
    moved = values[None] if axis is None else np.moveaxis(values, axis, 0)
    return moved.reshape(len(moved), -1)


@each
@few
@given(data=st.data())
def test_each_channel_has_at_most_so_many_levels_and_they_are_named(name, data):
    w, axis, bits = data.draw(cases(name))
    tensor = quantized(name, w, axis, bits)
    params = tensor.qparams
    assert tensor.codes.shape == w.shape
    assert tensor.codes.dtype == params.zero_point.dtype == params.qtype.storage
    assert not params.zero_point.any()
    assert params.axis == (None if axis is None else axis % 3)
    assert tensor.levels.shape[:-1] == params.scale.shape
    assert tensor.bits <= bits
    assert np.all(np.diff(tensor.levels.astype(int), axis=-1) >= 0)
    levels = tensor.levels.reshape(-1, tensor.levels.shape[-1])
    for codes, named in zip(rows(tensor.codes, axis), levels, strict=True):
        assert set(codes) <= set(named)


@each
@few
@given(data=st.data(), power=st.integers(-20, 20))
def test_a_power_of_two_scales_the_scale_and_keeps_the_codes(name, data, power):
    w, axis, bits = data.draw(cases(name))
    assume(np.all((w == 0) | (np.abs(w) > 1e-20)))
    assume(np.any(w))
    factor = np.float32(2.0**power)
    one, other = (quantized(name, v, axis, bits) for v in (w, w * factor))
    assert np.array_equal(one.codes, other.codes)
    assert np.array_equal(one.qparams.scale * factor, other.qparams.scale)


@each
def test_a_dead_channel_has_a_usual_scale(name):
    w = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    w[[1, 3]] = 0
    scale = quantized(name, w, 0, widths(name)[0]).qparams.scale
    assert scale[1] == scale[3] == np.sort(scale[[0, 2, 4]])[1]
    zeros = quantized(name, np.zeros((3, 4), np.float32), 0, widths(name)[0])
    assert np.all(zeros.qparams.scale == 1)


@each
def test_one_weight_and_no_weight(name):
    for shape in ((1, 1), (0, 3), (3, 0)):
        for axis in (None, 0):
            found = quantized(name, np.ones(shape, np.float32), axis, widths(name)[-1])
            assert found.codes.shape == shape


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(name, bad):
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        quantized(name, np.array([[1.0, bad]], np.float32), 0, widths(name)[0])


@each
def test_channels_are_independent_and_the_layout_does_not_matter(name):
    w = np.random.default_rng(0).laplace(size=(4, 3, 5)).astype(np.float32)
    bits = widths(name)[-1]
    whole = quantized(name, w, 1, bits)
    turned = quantized(name, w.transpose(1, 2, 0), 0, bits)
    assert np.array_equal(whole.codes.transpose(1, 2, 0), turned.codes)
    alone = quantized(name, w[:, 1], None, bits)
    assert np.array_equal(whole.codes[:, 1], alone.codes)


@each
def test_a_width_it_has_not_is_refused(name):
    with pytest.raises(ConfigError, match=f"weight quantizer '{name}' has .* not 16"):
        weight_quantizers()[name].require_width(16)
