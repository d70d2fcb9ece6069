"""What every block quantizer promises, at each of its widths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.block_methods import BLOCK_METHODS
from ptq.errors import CalibrationError, ConfigError
from ptq.numerics.arrays import F32_TINY
from ptq.numerics.block_tensor import FloatTensor, offset_of
from ptq.numerics.blocks import BlockFormat
from ptq.numerics.qtype import QType

METHODS = BLOCK_METHODS.methods()
WIDTHS = [(name, bits) for name, method in METHODS.items() for bits in method.widths]

every_width = pytest.mark.parametrize(("name", "bits"), WIDTHS)

FINITE = st.floats(-(2.0**60), 2.0**60, width=32)
WEIGHTS = hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=FINITE)


def layout(bits, axis=1, block=4):
    return BlockFormat(QType(bits, signed=False), axis, block, symmetric=True)


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def blocks_of(array, block):
    return [array[:, i : i + block] for i in range(0, array.shape[1], block)]


@every_width
@settings(max_examples=10)
@given(w=WEIGHTS)
def test_codes_scales_and_values_are_in_their_bounds(name, bits, w):
    tensor = METHODS[name]().quantize(w, layout(bits))
    params = tensor.qparams
    shape = (len(w), -(-w.shape[1] // 4))
    assert tensor.codes.shape == w.shape
    assert params.scale.shape == params.zero_point.shape == shape
    assert np.all(params.scale >= F32_TINY)
    assert tensor.bits == bits
    assert np.all(np.isfinite(tensor.dequantize()))
    if tensor.levels is not None:
        assert tensor.levels.shape[:-1] == shape
        assert np.isin(tensor.codes, tensor.levels).all()
    elif not isinstance(tensor, FloatTensor):
        assert tensor.codes.max() <= params.qtype.qmax
        assert np.all(params.zero_point == params.qtype.middle)
    offset = offset_of(tensor)
    assert (offset is not None) == METHODS[name].offsets
    assert offset is None or offset.shape == shape


@every_width
def test_blocks_may_be_along_either_axis(name, bits):
    w = normal((6, 10))
    rows = METHODS[name]().quantize(w, layout(bits))
    columns = METHODS[name]().quantize(w.T, layout(bits, axis=0))
    assert np.array_equal(rows.codes.T, columns.codes)
    assert np.array_equal(rows.dequantize().T, columns.dequantize())


@every_width
def test_a_short_block_is_quantized_as_if_it_were_all(name, bits):
    """What fills it up has no part in its scale and offset, so that its end is as good."""
    method, options = METHODS[name], {"scale_bits": 0} if name == "kquant" else {}
    w = normal((3, 11)) + 3
    cut = method(**options).quantize(w, layout(bits, block=8)).dequantize()[:, 8:]
    alone = method(**options).quantize(w[:, 8:], layout(bits, block=8)).dequantize()
    assert np.array_equal(cut, alone)


@every_width
def test_zeros_stay_zeros_beside_blocks_that_are_none(name, bits):
    w = normal((2, 12))
    w[:, 4:8] = 0
    found = METHODS[name]().quantize(w, layout(bits)).dequantize()
    assert np.all(found[:, 4:8] == 0)
    assert np.all(METHODS[name]().quantize(0 * w, layout(bits)).dequantize() == 0)


@every_width
def test_the_error_is_at_most_the_range_of_a_block_over_its_levels(name, bits):
    w = normal((8, 64), 3)
    found = METHODS[name]().quantize(w, layout(bits, block=32)).dequantize()
    # shrunk ranges, and MX's largest elements, lose more of a few weights, never of the most
    coarse = 2 ** (bits - 1) if bits < 8 else 16  # floats of 8 bits have 3 of mantissa
    for before, after in zip(blocks_of(w, 32), blocks_of(found, 32), strict=True):
        reach = 2 * np.abs(before).max(axis=1)
        assert np.all(np.median(np.abs(after - before), axis=1) <= reach / coarse / 2)


@every_width
def test_a_power_of_two_goes_through(name, bits):
    """Scales follow the weights: codes are the same. Exact but for what is chosen by size."""
    if name == "hqq":
        return  # its norm is not homogeneous
    w = normal((4, 16), 5)
    one, other = (METHODS[name]().quantize(v, layout(bits)) for v in (w, w * np.float32(2.0**-9)))
    assert np.array_equal(one.codes, other.codes)
    assert np.array_equal(one.dequantize() * np.float32(2.0**-9), other.dequantize())


@pytest.mark.parametrize("name", ["hqq", "kquant"])
@pytest.mark.parametrize("value", [0.25, -3.0])
def test_equal_weights_are_their_offset(name, value):
    w = np.full((2, 9), value, np.float32)
    found = METHODS[name]().quantize(w, layout(4, block=8)).dequantize()
    # the float16 step of a super-block keeps 11 bits, and it is the largest that has all codes
    assert found == pytest.approx(w, rel=2**-11)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(name, bad):
    w = np.array([[1.0, bad]], np.float32)
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        METHODS[name]().quantize(w, layout(METHODS[name].widths[0]))


@pytest.mark.parametrize("name", METHODS)
def test_no_weights_have_no_codes(name):
    for shape in ((0, 3), (3, 0)):
        w = np.zeros(shape, np.float32)
        tensor = METHODS[name]().quantize(w, layout(METHODS[name].widths[0]))
        assert tensor.dequantize().shape == shape


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_whence_it_comes_and_what_it_is_good_for(name):
    method = METHODS[name]
    assert (method.__doc__ or "").partition("\n")[0].endswith(".")
    assert method.paper
    assert method.good_for
    assert method.widths
    with pytest.raises(ConfigError, match=f"block quantizer '{name}' has .* bits, not 7"):
        method.require_width(7)
