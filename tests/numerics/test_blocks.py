"""Blocks: no weight is further from its code than it must be, and packing loses nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    DefaultWeightOnlyQuantizer,
)

from ptq.errors import CalibrationError, ConfigError
from ptq.numerics.affine import dequantize
from ptq.numerics.blocks import BlockFormat, pack, quantize_blocks, unpack
from ptq.numerics.qtype import QType

BITS = [2, 4, 8]


def layout(bits=4, axis=-1, block=16, symmetric=True):
    return BlockFormat(QType(bits, signed=False), axis, block, symmetric)


LAYOUTS = st.builds(
    layout, st.sampled_from(BITS), st.sampled_from([0, 1, -1]), st.integers(1, 12), st.booleans()
)
WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=9),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


def blocks_of(array, form):
    """The blocks of an array, each with its scale and zero point, by plain loops."""
    tensor = quantize_blocks(array, form)
    params = tensor.qparams
    moved = [np.moveaxis(a, form.axis, -1) for a in (array, tensor.codes, params.scale,
                                                     params.zero_point)]  # fmt: skip
    for place in np.ndindex(moved[0].shape[:-1]):
        row, codes, scales, zeros = (a[place] for a in moved)
        for i, (scale, zero) in enumerate(zip(scales, zeros, strict=True)):
            part = slice(i * form.block_size, (i + 1) * form.block_size)
            yield row[part], codes[part], scale, zero


def error(values, codes, scale, zero):
    return np.sum((values.astype(float) - (codes.astype(float) - zero) * float(scale)) ** 2)


@given(WEIGHTS, LAYOUTS)
def test_a_block_is_at_least_as_near_as_over_its_full_range(array, form):
    middle = form.qtype.middle
    for values, codes, scale, zero in blocks_of(array, form):
        lo, hi = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        if form.symmetric:
            assert zero == middle
            step = max(hi / (form.qtype.qmax - middle), -lo / middle)
        else:
            step = (hi - lo) / form.qtype.qmax
        # rounding is wrong by half a step; where it is cut off, the zero point, rounded as well,
        # adds as much at an end. float32 scales and quotients add parts in 2^-22
        bound = values.size * max(step * (1 + 1e-6), 2.0**-126) ** 2
        assert error(values, codes, scale, zero) <= bound


@given(WEIGHTS, LAYOUTS)
def test_codes_are_the_nearest_of_their_grid(array, form):
    for values, codes, scale, zero in blocks_of(array, form):
        grid = (np.arange(form.qtype.qmax + 1) - float(zero)) * float(scale)
        gaps = np.abs(values[:, None].astype(float) - grid)
        found = np.abs(values.astype(float) - (codes.astype(float) - zero) * float(scale))
        # the quotient is rounded to float32: at a tie the other side may be taken
        assert np.all(found <= gaps.min(axis=1) + 1e-6 * float(scale) * (form.qtype.qmax + 1))


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]), st.booleans())
def test_the_search_never_costs_and_mostly_gains(seed, bits, symmetric):
    array = np.random.default_rng(seed).standard_normal((8, 64)).astype(np.float32)
    form = layout(bits, 1, 32, symmetric)
    found = np.sum((quantize_blocks(array, form).dequantize() - array) ** 2)
    lo, hi = array.reshape(-1, 32).min(axis=1), array.reshape(-1, 32).max(axis=1)
    middle = form.qtype.middle
    if symmetric:
        step = np.maximum(hi / (form.qtype.qmax - middle), -lo / middle)
        zero = np.full_like(step, middle)
    else:
        step = (hi - lo) / form.qtype.qmax
        zero = np.rint(-lo / step)
    codes = np.clip(np.rint(array.reshape(-1, 32) / step[:, None]) + zero[:, None], 0,
                    form.qtype.qmax)  # fmt: skip
    plain = np.sum(((codes - zero[:, None]) * step[:, None] - array.reshape(-1, 32)) ** 2)
    assert found <= plain * (1 + 1e-5)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_are_exact_with_scale_1(bits, symmetric):
    array = np.zeros((2, 40), np.float32)
    array[1, :16] = np.linspace(-1, 2, 16)
    tensor = quantize_blocks(array, layout(bits, 1, 16, symmetric))
    assert np.all(tensor.qparams.scale[0] == 1)
    assert np.all(tensor.dequantize()[0] == 0)
    assert np.all(tensor.dequantize()[1, 16:] == 0)
    if symmetric:
        assert np.all(tensor.qparams.zero_point == 1 << (bits - 1))


def test_all_codes_of_a_symmetric_grid_are_used():
    array = np.array([[-8, 7, 0, 1]], np.float32)
    tensor = quantize_blocks(array, layout(4, 1, 4))
    assert tensor.codes.tolist() == [[0, 15, 8, 9]]
    assert tensor.qparams.scale.tolist() == [[1]]


def test_a_last_short_block_has_a_scale_of_its_own():
    array = np.concatenate([np.full(16, 100), np.full(3, 1)]).astype(np.float32)[:, None]
    tensor = quantize_blocks(array, layout(8, 0, 16))
    assert tensor.qparams.scale.shape == (2, 1)
    np.testing.assert_allclose(tensor.dequantize(), array, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused(value):
    array = np.ones((2, 16), np.float32)
    array[1, 3] = value
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        quantize_blocks(array, layout())


def test_the_largest_and_the_smallest_floats_stay_finite():
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    array = np.array([[tiny, -tiny, 0, 0], [huge, -huge, 0, 1]], np.float32)
    for bits in BITS:
        for symmetric in (True, False):
            tensor = quantize_blocks(array, layout(bits, 1, 4, symmetric))
            assert np.all(np.isfinite(tensor.dequantize()))


def test_a_block_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="a block of 0 weights"):
        layout(block=0)


@given(st.data(), st.sampled_from([1, 2, 4, 8]))
def test_unpacking_gives_back_what_was_packed(data, bits):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=20))
    codes = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (*shape[:-1], -(-shape[-1] * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, shape[-1]), codes)


def test_the_first_code_is_in_the_lowest_bits():
    assert pack(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]
    assert pack(np.array([1, 2, 3, 0, 2], np.uint8), 2).tolist() == [0b00111001, 0b10]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_packed_by_onnxruntime_unpack_to_its_weights(bits, symmetric):
    array = np.random.default_rng(0).standard_normal((70, 24)).astype(np.float32)
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=symmetric, bits=bits)
    packed, scales, zeros = DefaultWeightOnlyQuantizer(config).qbits_block_quant(array)
    codes = unpack(packed.reshape(24, -1), bits, 96)
    zero_points = unpack(zeros.reshape(24, -1), bits, 3)
    if symmetric:  # then it leaves them out, and the kernel takes the middle
        zero_points = np.full_like(zero_points, 1 << (bits - 1))
    params = quantize_blocks(array.T, layout(bits, 1, 32, symmetric)).qparams
    theirs = replace(params, scale=np.abs(scales.reshape(24, 3)), zero_point=zero_points)
    sign = np.repeat(np.sign(scales.reshape(24, 3)), 32, axis=1)[:, :70]
    back = dequantize(codes[:, :70], theirs) * sign
    # half a step, and as much for a zero point that is rounded or a largest code that is missing
    steps = np.repeat(theirs.scale, 32, axis=1)[:, :70]
    assert np.all(np.abs(back - array.T) <= steps * 1.001)
