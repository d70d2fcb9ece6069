"""Weights for kernels that add pairs of products in 16 bits: they fit, and lose little by it."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.models import parse

from ptq.numerics.affine import QParams, QTensor, quantize
from ptq.numerics.pairs import _OFFSET_COST, PAIR_LIMIT, fit_pairs, fits, orders_of
from ptq.numerics.qtype import INT8
from ptq.weights import weight_quantizer, weight_quantizers

#: A shape, the axis of its output channels, whether it is a convolution's.
SHAPES = st.sampled_from(
    [
        ((4, 6), 0, False),
        ((7, 3), 1, False),
        ((3, 4, 3, 3), 0, True),
        ((3, 3, 1, 2), 0, True),
        ((2, 5, 1, 1), 0, True),
        ((2, 3, 5), 0, True),
        ((2, 2, 2, 1, 3), 0, True),
    ]
)
#: Equal weights crowd together; zeros and lone large ones leave room.
WEIGHTS = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 3.0, 4.0, -4.0]))
#: What of the squared error the float32 arithmetic of the search cannot tell.
SLACK = 1 + 1e-4


@st.composite
def crowded(draw, *, methods=("minmax",), symmetric=(True,), per_channel=(True, False)):
    """A weight, its codes and the orders of its kernels."""
    shape, axis, convolution = draw(SHAPES)
    w = draw(hnp.arrays(np.float32, shape, elements=WEIGHTS))
    tensor = weight_quantizer(draw(st.sampled_from(methods))).quantize(
        w,
        INT8,
        axis=axis if draw(st.sampled_from(per_channel)) else None,
        symmetric=draw(st.sampled_from(symmetric)),
    )
    return w, tensor, orders_of(len(shape), axis, convolution=convolution)


#: Those with levels of their own are kept from saturating by `ptq.numerics.levels.within`.
UNIFORM = sorted(name for name, method in weight_quantizers().items() if method.uniform)
ANY = crowded(methods=UNIFORM, symmetric=(True, False))


def neighbours(channel, order):
    """Yield the pairs of one channel, one by one, as the kernel takes them."""
    flat = channel.transpose([a - 1 for a in order[1:]]).ravel().astype(int)
    yield from zip(flat[::2], flat[1::2], strict=False)


def largest_pair(tensor, orders):
    """Return the largest sum of same-signed codes of a pair: the definition, in plain loops."""
    codes = np.moveaxis(tensor.codes, orders[0][0], 0)
    moved = [
        (0, *(1 + sorted(set(order) - {order[0]}).index(a) for a in order[1:])) for order in orders
    ]
    return max(
        max(abs(max(a, 0) + max(b, 0)), abs(min(a, 0) + min(b, 0)))
        for channel in codes
        for order in moved
        for a, b in neighbours(channel, order)
    )


def error(w, tensor, orders):
    """Return the error that is made small: of each channel, or of all if they share a scale."""
    differences = np.moveaxis(w.astype(np.float64) - tensor.dequantize(), orders[0][0], 0)
    rows = differences.reshape(len(differences), -1)
    errors = (rows**2).sum(axis=1) + _OFFSET_COST * rows.sum(axis=1) ** 2
    return errors if tensor.qparams.axis is not None else errors.sum()


def with_scale(w, tensor, factor):
    """Return the weight quantized with a larger scale."""
    params = tensor.qparams
    scale = (params.scale * np.float32(factor)).astype(np.float32)
    larger = QParams(scale, params.zero_point, params.qtype, params.axis)
    return QTensor(quantize(w, larger), larger)


# -- what fits -------------------------------------------------------------------------------------


@given(case=ANY)
def test_a_weight_fits_if_no_pair_is_larger_than_the_limit(case):
    _, tensor, orders = case
    assert fits(tensor, orders) == (largest_pair(tensor, orders) <= PAIR_LIMIT)


def test_the_limit_is_what_the_instruction_computes_exactly():
    largest, least = np.iinfo(np.int16).max, np.iinfo(np.int16).min
    assert 255 * PAIR_LIMIT <= largest < 255 * (PAIR_LIMIT + 1)
    assert -255 * PAIR_LIMIT >= least > -255 * (PAIR_LIMIT + 1)


@given(case=ANY)
def test_the_result_fits_in_every_order(case):
    w, tensor, orders = case
    found = fit_pairs(w, tensor, orders)
    assert fits(found, orders)
    assert largest_pair(found, orders) <= PAIR_LIMIT
    assert found.codes.shape == tensor.codes.shape
    assert found.codes.dtype == tensor.codes.dtype
    assert found.qparams.axis == tensor.qparams.axis
    assert found.qparams.qtype == tensor.qparams.qtype
    assert found.codes.min() >= found.qparams.qtype.qmin


@given(case=ANY)
def test_a_weight_that_fits_stays_as_it_is(case):
    w, tensor, orders = case
    once = fit_pairs(w, tensor, orders)
    assert fit_pairs(w, once, orders) is once
    if fits(tensor, orders):
        assert once is tensor


@given(case=crowded(per_channel=(True,), symmetric=(True, False)))
def test_a_channel_that_fits_keeps_its_codes_and_its_scale(case):
    w, tensor, orders = case
    axis, found = orders[0][0], fit_pairs(w, tensor, orders)
    for channel in range(w.shape[axis]):
        chosen = np.take(tensor.codes, [channel], axis)
        alone = QTensor(chosen, one_channel(tensor.qparams, channel))
        if fits(alone, orders):
            np.testing.assert_array_equal(np.take(found.codes, [channel], axis), chosen)
            assert found.qparams.scale[channel] == tensor.qparams.scale[channel]
            assert found.qparams.zero_point[channel] == tensor.qparams.zero_point[channel]


def one_channel(params, channel):
    scale, zero_point = (p[channel : channel + 1] for p in (params.scale, params.zero_point))
    return QParams(scale, zero_point, params.qtype, params.axis)


@given(case=ANY)
def test_a_channel_does_not_depend_on_the_others(case):
    w, tensor, orders = case
    assume(tensor.qparams.axis is not None)
    assume(not np.any(tensor.qparams.zero_point))
    axis, found = orders[0][0], fit_pairs(w, tensor, orders)
    for channel in range(w.shape[axis]):
        alone = QTensor(
            np.take(tensor.codes, [channel], axis), one_channel(tensor.qparams, channel)
        )
        one = fit_pairs(np.take(w, [channel], axis), alone, orders)
        np.testing.assert_array_equal(np.take(found.codes, [channel], axis), one.codes)
        assert found.qparams.scale[channel] == one.qparams.scale[0]


# -- what it costs ---------------------------------------------------------------------------------


@given(case=crowded())
def test_it_loses_no_more_than_seven_bits_do(case):
    w, tensor, orders = case
    found, seven = fit_pairs(w, tensor, orders), with_scale(w, tensor, 2.0)
    assert fits(seven, orders)
    # channels that fit keep the error of 8 bits, which luck may make the larger one
    allowed = np.maximum(error(w, seven, orders), error(w, tensor, orders))
    assert np.all(error(w, found, orders) <= allowed * SLACK + 1e-12)


@given(case=crowded(per_channel=(False,)))
def test_it_loses_no_more_than_a_scale_at_which_all_pairs_fit(case):
    w, tensor, orders = case
    growth = max(largest_pair(tensor, orders) / PAIR_LIMIT, 1.0)
    grown = with_scale(w, tensor, growth)
    assume(fits(grown, orders))
    found = error(w, fit_pairs(w, tensor, orders), orders)
    assert found <= error(w, grown, orders) * SLACK + 1e-12


def test_a_lone_crowded_pair_shrinks_where_a_larger_scale_would_hurt_all_others():
    w = np.random.default_rng(0).integers(-3, 4, (1, 400)).astype(np.float32)
    w[0, :2] = 127.0, 5.0
    tensor = weight_quantizer("minmax").quantize(w, INT8, axis=0, symmetric=True)
    found = fit_pairs(w, tensor, orders_of(2, 0, convolution=False))
    assert found.qparams.scale == tensor.qparams.scale
    assert found.codes[0, :2].tolist() == [125, 3]
    np.testing.assert_array_equal(found.codes[0, 2:], tensor.codes[0, 2:])


def test_an_offset_counts_more_than_errors_of_both_signs():
    """A larger scale errs both ways; pairs that shrink do not, and behind a Relu that adds up."""
    orders = orders_of(2, 0, convolution=False)
    w = np.random.default_rng(3).normal(0, 15, (64, 256)).astype(np.float32)
    w[:, :24:2], w[:, 1:24:2] = 127.0, 20.0
    tensor = weight_quantizer("minmax").quantize(w, INT8, axis=0, symmetric=True)
    codes = tensor.codes.copy()
    codes[:, :24] -= np.tile(np.array([10, 9], np.int8), 12)
    shrunk = QTensor(codes, tensor.qparams)
    assert fits(shrunk, orders)
    x = np.abs(np.random.default_rng(4).normal(size=(256, 500)))
    squares = [
        ((a.dequantize() @ x - w @ x) ** 2).mean() for a in (fit_pairs(w, tensor, orders), shrunk)
    ]
    assert squares[0] < squares[1] / 4


def test_where_all_pairs_are_crowded_the_scale_grows():
    w = np.linspace(100, 127, 64, dtype=np.float32)[None]
    tensor = weight_quantizer("minmax").quantize(w, INT8, axis=0, symmetric=True)
    found = fit_pairs(w, tensor, orders_of(2, 0, convolution=False))
    assert 1.9 < found.qparams.scale / tensor.qparams.scale < 2.1


@given(case=crowded(methods=("qcode",)))
def test_power_of_two_scales_stay_powers_of_two(case):
    w, tensor, orders = case
    found = fit_pairs(w, tensor, orders)
    grown = found.qparams.scale / tensor.qparams.scale
    assert np.all((grown == 1.0) | (grown == 2.0))
    assert not np.any(found.qparams.zero_point)


@given(case=crowded(symmetric=(False,)))
def test_weights_with_zero_points_lose_a_bit_at_most(case):
    w, tensor, orders = case
    found = fit_pairs(w, tensor, orders)
    # a step of 7 bits is 255/127 of one of 8; with it, the zero point may be rounded by half
    assert np.all(found.qparams.scale <= tensor.qparams.scale * np.float32(255 / 127) * SLACK)
    assert np.abs(w - found.dequantize()).max() <= found.qparams.scale.max() * 1.01


# -- the kernels -----------------------------------------------------------------------------------

#: Large weights of one sign: every pair overflows, unless something is done about it.
HEAVY = np.random.default_rng(0)


def heavy(shape):
    return HEAVY.uniform(0.5, 1.0, shape).astype(np.float32) * HEAVY.choice([1, 1, 1, -1], shape)


def fitted(w, axis, *, convolution):
    tensor = weight_quantizer("minmax").quantize(w, INT8, axis=axis, symmetric=True)
    orders = orders_of(w.ndim, axis, convolution=convolution)
    assert not fits(tensor, orders)
    return fit_pairs(w, tensor, orders).codes


def run(text, weights, feed, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    model = parse(text, weights).SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feed)


LEVELS = pytest.mark.parametrize(
    "level",
    [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL],
    ids=["disabled", "all"],
)


def extremes(shape):
    """Yield inputs that drive pairs to their largest sums: all 255, and 0 or 255 at random."""
    yield np.full(shape, 255, np.uint8)
    yield np.random.default_rng(1).choice(np.array([0, 255], np.uint8), shape)


@LEVELS
@pytest.mark.parametrize(
    ("inputs", "shape", "group"),
    [
        (16, (16, 16, 1, 1), 1),
        (16, (32, 16, 3, 3), 1),
        (15, (20, 15, 1, 1), 1),
        (3, (16, 3, 3, 3), 1),
        (5, (4, 5, 3, 2), 1),
        (1, (8, 1, 3, 3), 1),
        (16, (16, 4, 3, 3), 4),
        (6, (9, 2, 1, 3), 3),
        (8, (16, 1, 3, 3), 8),  # two outputs for each input: no depthwise kernel
        (6, (8, 6, 3), 1),
        (4, (8, 4, 3, 3, 3), 1),
    ],
)
def test_convolutions_are_exact_for_extreme_inputs(inputs, shape, group, level):
    codes = fitted(heavy(shape), 0, convolution=True)
    wide = ", ".join(map(str, shape))
    rank = len(shape) - 2
    for x in extremes((1, inputs, *shape[2:])):
        parts = np.split(x.reshape(inputs, -1).astype(np.int64), group)
        rows = np.split(codes.reshape(shape[0], -1).astype(np.int64), group)
        sums = np.concatenate([w @ p.ravel() for w, p in zip(rows, parts, strict=True)])
        scale = np.float32(2.0 ** np.ceil(np.log2(np.abs(sums).max() / 127)))
        given = {"w": codes, "s": np.ones((), np.float32), "z": np.zeros((), np.uint8)}
        given |= {"wz": np.zeros((), np.int8), "ys": np.array(scale), "yz": np.array(128, np.uint8)}
        [y] = run(
            f"""g (uint8[1, {inputs}, {", ".join(map(str, shape[2:]))}] x)
            => (uint8[1, {shape[0]}, {", ".join("1" * rank)}] y)
            <int8[{wide}] w, float s, uint8 z, int8 wz, float ys, uint8 yz> {{
                y = QLinearConv <group = {group}> (x, s, z, w, s, wz, ys, yz)
            }}""",
            given,
            {"x": x},
            level,
        )
        np.testing.assert_array_equal(y.ravel(), np.rint(sums / scale) + 128)


@LEVELS
@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_is_exact_for_extreme_inputs(transposed, level):
    shape = (24, 33) if transposed else (33, 24)
    codes = fitted(heavy(shape), 0 if transposed else 1, convolution=False)
    wide = codes.T if transposed else codes
    for x in extremes((5, 33)):
        sums = x.astype(np.int64) @ wide.astype(np.int64)
        [y] = run(
            f"""<ir_version: 8, opset_import: ["" : 21, "com.microsoft" : 1]>
            g (uint8[5, 33] x) => (float[5, 24] y)
            <int8[{shape[0]}, {shape[1]}] w, float s, uint8 z, int8 wz> {{
                y = com.microsoft.QGemm <transB = {int(transposed)}> (x, s, z, w, s, wz)
            }}""",
            {"w": codes, "s": np.ones((), np.float32), "z": np.zeros((), np.uint8)}
            | {"wz": np.zeros((), np.int8)},
            {"x": x},
            level,
        )
        np.testing.assert_array_equal(y, sums)  # below 2^24: exact in float32


@LEVELS
@pytest.mark.parametrize("shape", [(33, 24), (3, 33, 24)])
def test_products_of_matrices_are_exact_for_extreme_inputs(shape, level):
    w = heavy(shape)
    # of a batch, every column is a channel, and all share one scale
    columns = np.ascontiguousarray(np.swapaxes(w, -1, -2)).reshape(-1, shape[-2])
    tensor = weight_quantizer("minmax").quantize(columns, INT8, axis=None, symmetric=True)
    flat = fit_pairs(columns, tensor, orders_of(2, 0, convolution=False)).codes
    codes = np.swapaxes(flat.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)
    batch = ", ".join(map(str, (*shape[:-2], 5)))
    for x in extremes((*shape[:-2], 5, 33)):
        [y] = run(
            f"""g (uint8[{batch}, 33] x) => (int32[{batch}, 24] y)
            <int8[{", ".join(map(str, shape))}] w> {{ y = MatMulInteger (x, w) }}""",
            {"w": np.ascontiguousarray(codes)},
            {"x": x},
            level,
        )
        np.testing.assert_array_equal(y, x.astype(np.int64) @ codes.astype(np.int64))


@LEVELS
def test_depthwise_convolutions_are_exact_with_any_weights(level):
    codes = np.full((16, 1, 3, 3), 127, np.int8)
    given = {"w": codes, "s": np.ones((), np.float32), "z": np.zeros((), np.uint8)}
    given |= {"wz": np.zeros((), np.int8), "ys": np.array(4096, np.float32)}
    [y] = run(
        """g (uint8[1, 16, 3, 3] x) => (uint8[1, 16, 1, 1] y)
        <int8[16, 1, 3, 3] w, float s, uint8 z, int8 wz, float ys> {
            y = QLinearConv <group = 16> (x, s, z, w, s, wz, ys, z)
        }""",
        given,
        {"x": np.full((1, 16, 3, 3), 255, np.uint8)},
        level,
    )
    np.testing.assert_array_equal(y, np.full(y.shape, np.rint(255 * 127 * 9 / 4096)))
