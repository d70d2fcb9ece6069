"""What the emitted graph computes, against the float graph with every value rounded by numpy.

With power-of-two scales every product and sum below is exact in float32, so that the simulation,
the graph as written and the graph that onnxruntime fuses must agree to the bit.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import random_feed
from support.nets import (
    ORDINARY,
    Settings,
    check,
    normal,
    qparams,
    quantize,
    run,
    simulate,
)

from ptq.numerics.affine import quantize as codes_of

DECLARED = """
    float[4, 4, 3, 3] w0, float[4] b0, float[4, 4, 3, 3] w1, float[4] b1, float[4, 4, 1, 1] w2,
    float zero = {0}, float one = {1}, float minus = {-1}, float six = {6}, float half = {0.5},
    float[4, 1, 1] array, float[1, 4, 8, 8] image_of_ones,
    float hundred = {100}, float cold = {-100},
    int64[3] rows = {1, 4, 64}, int64[4] image = {1, 4, 8, 8}, int64[1] axis0 = {0},
    int64[2] parts = {2, 2}, int64[1] one_step = {1}, int64[1] six_steps = {6},
    int64[1] axis3 = {3}, int64[4] twice = {1, 1, 2, 2}, float[4] scales = {1, 1, 2, 2},
    int64[4] sizes = {1, 4, 16, 16}"""

#: From ``t``, which a convolution puts out, to ``u``, which another one reads; then the operators
#: that have to run on integers.
PATTERNS = {
    "conv": ("u = Identity (t)", []),
    "relu": ("u = Relu (t)", []),
    "clip to 6": ("u = Clip (t, zero, six)", []),
    "clip tighter than the data": ("u = Clip (t, minus, one)", []),
    "clip looser than the data": ("u = Clip (t, cold, hundred)", []),
    "clip with a lower end alone": ("u = Clip (t, minus)", []),
    "clip with an upper end alone": ("u = Clip (t, , one)", []),
    "add": ("a = Conv (x, w2) u = Add (t, a)", ["QLinearAdd"]),
    "add, relu": ("a = Conv (x, w2) s = Add (t, a) u = Relu (s)", ["QLinearAdd"]),
    "add, clip": ("a = Conv (x, w2) s = Add (t, a) u = Clip (s, zero, one)", ["QLinearAdd"]),
    "add the same": ("u = Add (t, t)", ["QLinearAdd"]),
    "add a scalar": ("r = Relu (t) u = Add (r, hundred)", ["QLinearAdd"]),
    "add to a scalar": ("r = Relu (t) u = Add (hundred, r)", ["QLinearAdd"]),
    "add an array": ("r = Sigmoid (t) u = Add (r, array)", ["QLinearSigmoid", "QLinearAdd"]),
    "multiply by an array": (
        "r = Sigmoid (t) u = Mul (array, r)",
        ["QLinearSigmoid", "QLinearMul"],
    ),
    "concatenate an array": (
        "c = Concat <axis = 2> (image_of_ones, t) u = Conv <strides = [2, 1]> (c, w2)",
        ["QLinearConcat"],
    ),
    "add the input": ("u = Add (t, x)", ["QLinearAdd"]),
    "multiply": ("a = Conv (x, w2) u = Mul (t, a)", ["QLinearMul"]),
    "square": ("u = Mul (t, t)", ["QLinearMul"]),
    "multiply by a scalar": ("r = Relu (t) m = Mul (r, half) u = Add (m, r)", ["QLinearAdd"]),
    "multiply by a negative scalar": (
        "r = Sigmoid (t) m = Mul (r, minus) u = Add (m, t)",
        ["QLinearSigmoid", "QLinearMul", "QLinearAdd"],
    ),
    "divide by a scalar": ("r = Relu (t) m = Div (r, half) u = Add (m, r)", ["QLinearAdd"]),
    "concatenate": (
        "a = Conv (x, w2) c = Concat <axis = 2> (t, a) u = Conv <strides = [2, 1]> (c, w2)",
        ["QLinearConcat"],
    ),
    "average": ("u = GlobalAveragePool (t)", ["QLinearGlobalAveragePool"]),
    "leaky relu": ("u = LeakyRelu <alpha = 0.25> (t)", ["QLinearLeakyRelu"]),
    "sigmoid": ("u = Sigmoid (t)", ["QLinearSigmoid"]),
    "max pool": ("u = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)", ["MaxPool"]),
    "relu, max pool": (
        "r = Relu (t) u = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r)",
        ["MaxPool"],
    ),
    "add, max pool": (
        "a = Conv (x, w2) s = Add (t, a) u = MaxPool <kernel_shape = [2, 2]> (s)",
        ["QLinearAdd", "MaxPool"],
    ),
    "multiply, max pool": (
        "a = Conv (x, w2) s = Mul (t, a) u = MaxPool <kernel_shape = [2, 2]> (s)",
        ["QLinearMul", "MaxPool"],
    ),
    "leaky relu, max pool, max pool": (
        """s = LeakyRelu <alpha = 0.25> (t) m = MaxPool <kernel_shape = [2, 2]> (s)
           u = MaxPool <kernel_shape = [2, 2]> (m)""",
        ["QLinearLeakyRelu", "MaxPool", "MaxPool"],
    ),
    "concatenate, max pool": (
        """a = Conv (x, w2) c = Concat <axis = 2> (t, a)
           u = MaxPool <kernel_shape = [2, 2]> (c)""",
        ["QLinearConcat", "MaxPool"],
    ),
    "multiply by a scalar, max pool": (
        "m = Mul (t, half) p = MaxPool <kernel_shape = [2, 2]> (m) u = Sigmoid (p)",
        ["MaxPool", "QLinearSigmoid"],
    ),
    "resize by scales": (
        'u = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor"> (t, , scales)',
        ["Resize"],
    ),
    "resize to sizes": ('u = Resize <mode = "nearest"> (t, , , sizes)', ["Resize"]),
    "reshape": ("r = Reshape (t, rows) u = Reshape (r, image)", []),
    "reshape and transpose": (
        "r = Reshape (t, rows) s = Transpose <perm = [0, 2, 1]> (r) u = Reshape (s, image)",
        ["Reshape", "Transpose", "Reshape"],
    ),
    "transpose": ("u = Transpose <perm = [0, 1, 3, 2]> (t)", ["Transpose"]),
    "slice": ("u = Slice (t, one_step, six_steps, axis3)", ["Slice"]),
    "split": ("a, c = Split <axis = 1> (t, parts) u = Concat <axis = 1> (c, a)", ["Split"]),
    "squeeze": ("s = Squeeze (t, axis0) u = Unsqueeze (s, axis0)", []),
    "expand": ("s = Slice (t, axis0, one_step, axis3) u = Expand (s, image)", ["Expand"]),
    "tile": ("u = Tile (t, twice)", ["Tile"]),
    "depth to space": (
        "d = DepthToSpace <blocksize = 2> (t) u = Concat <axis = 1> (d, d, d, d)",
        ["DepthToSpace"],
    ),
}


def pattern(name):
    return f"""
        g (float[1, 4, 8, 8] x) => (float[N, 4, H, W] y) <{DECLARED}> {{
          t = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
          {PATTERNS[name][0]}
          y = Conv <pads = [1, 1, 1, 1]> (u, w1, b1)
        }}"""


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_computes_what_the_plan_says(name):
    quantized = quantize(pattern(name))
    for seed in range(3):
        feed = random_feed(quantized.source, seed)
        expected = simulate(quantized, feed)
        for level in ("disabled", "all"):
            found = run(quantized.model, feed, level)
            np.testing.assert_array_equal(found[0], expected[0], err_msg=level)
    check(quantized.model)


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_runs_on_integers(name):
    quantized = quantize(pattern(name), settings=ORDINARY)
    assert quantized.sites.why_float == {}
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert not coverage.floating
    # one for every input and output of the model, and none in between
    assert coverage.conversions == 2
    ran = [op.removeprefix("Nhwc") for op in coverage.integer.elements()]
    for op_type in set(PATTERNS[name][1]):
        assert ran.count(op_type) >= PATTERNS[name][1].count(op_type)


@pytest.mark.parametrize("name", [n for n in PATTERNS if "max pool" in n])
def test_a_max_pool_among_convolutions_runs_with_channels_last(name):
    # the kernel for channels first is 25 times slower than float
    coverage = quantize(pattern(name), settings=ORDINARY).coverage()
    assert coverage.integer["NhwcMaxPool"] == PATTERNS[name][1].count("MaxPool")


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_at_ordinary_scales_is_right_to_a_step(name):
    quantized = quantize(pattern(name), settings=ORDINARY)
    feed = random_feed(quantized.source)
    expected = simulate(quantized, feed)[0]
    step = quantized.steps()[0]
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)[0]
        # Sums in another order differ by some 1e-7, which can turn a rounding at each of the two
        # or three sites; a code more at one of 36 products moves the last sum by less than a step,
        # as its scale covers all of them. Then the output rounds: two steps, and hardly ever.
        assert np.abs(found - expected).max() <= 2.001 * step
        assert np.mean(np.abs(found - expected) > 0.5 * step) < 0.02


LINEAR = {
    "gemm": ("float[3, 8] x", "float[3, M] y", "float[8, 5] w, float[5] b", "Gemm (x, w, b)"),
    "gemm, weight transposed": (
        "float[3, 8] x", "float[3, M] y", "float[5, 8] w, float[5] b",
        "Gemm <transB = 1> (x, w, b)",
    ),
    "gemm, row of a bias": (
        "float[3, 8] x", "float[3, M] y", "float[8, 5] w, float[1, 5] b", "Gemm (x, w, b)",
    ),
    "gemm, no bias": ("float[3, 8] x", "float[3, M] y", "float[8, 5] w", "Gemm (x, w)"),
    "gemm, one output": (
        "float[3, 8] x", "float[3, M] y", "float[8, 1] w, float[1] b", "Gemm (x, w, b)",
    ),
    "matmul": ("float[3, 8] x", "float[3, M] y", "float[8, 5] w", "MatMul (x, w)"),
    "matmul of rank 3": ("float[2, 3, 8] x", "float[2, 3, M] y", "float[8, 5] w", "MatMul (x, w)"),
    "matmul of a vector": ("float[8] x", "float[M] y", "float[8, 5] w", "MatMul (x, w)"),
    "matmul, weights in batches": (
        "float[2, 3, 8] x", "float[2, 3, M] y", "float[2, 8, 5] w", "MatMul (x, w)",
    ),
    "conv 1d": (
        "float[2, 4, 9] x", "float[2, M, L] y", "float[5, 4, 3] w, float[5] b", "Conv (x, w, b)",
    ),
    "conv 3d": (
        "float[1, 2, 5, 4, 3] x", "float[1, M, D, H, W] y", "float[3, 2, 2, 2, 2] w, float[3] b",
        "Conv (x, w, b)",
    ),
    "conv, groups": (
        "float[1, 4, 6, 6] x", "float[1, M, H, W] y", "float[6, 2, 3, 3] w, float[6] b",
        "Conv <group = 2> (x, w, b)",
    ),
    "conv, depthwise": (
        "float[1, 4, 6, 6] x", "float[1, M, H, W] y", "float[4, 1, 3, 3] w, float[4] b",
        "Conv <group = 4, pads = [1, 1, 1, 1]> (x, w, b)",
    ),
    "conv, two outputs for each channel": (
        "float[1, 4, 6, 6] x", "float[1, M, H, W] y", "float[8, 1, 3, 3] w",
        "Conv <group = 4> (x, w)",
    ),
    "conv, dilated": (
        "float[1, 4, 9, 9] x", "float[1, M, H, W] y", "float[5, 4, 3, 3] w",
        "Conv <dilations = [2, 3]> (x, w)",
    ),
    "conv, same padding": (
        "float[1, 4, 7, 8] x", "float[1, M, H, W] y", "float[5, 4, 2, 3] w",
        'Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)',
    ),
    "conv, any batch": (
        "float[N, 4, 7, 8] x", "float[N, M, H, W] y", "float[5, 4, 3, 3] w", "Conv (x, w)",
    ),
}  # fmt: skip


def linear(name, after=""):
    x, y, weights, node = LINEAR[name]
    if not after:
        return f"g ({x}) => ({y}) <{weights}> {{ y = {node} }}"
    row = "float zero = {0}, float[5] row"
    return f"g ({x}) => ({y}) <{weights}, {row}> {{ t = {node} {after} }}"


GRANULARITY = pytest.mark.parametrize("per_channel", [True, False], ids=["channel", "tensor"])


@GRANULARITY
@pytest.mark.parametrize("name", LINEAR)
def test_linear_operator_computes_what_the_plan_says(name, per_channel):
    quantized = quantize(linear(name), settings=Settings(per_channel=per_channel))
    feed = random_feed(quantized.source)
    expected = simulate(quantized, feed)
    assert quantized.coverage().unfused == ()
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)
        np.testing.assert_array_equal(found[0], expected[0], err_msg=level)
    check(quantized.model)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_operator_with_zero_points_everywhere(name, symmetric):
    # Depthwise kernels have no zero points (test_sites); all others take one for each channel.
    settings = replace(ORDINARY, weights_symmetric=symmetric)
    quantized = quantize(linear(name), settings=settings)
    feed = random_feed(quantized.source)
    expected = simulate(quantized, feed)[0]
    assert quantized.coverage().unfused == ()
    zero_points = quantized.model.graph.initializers["w/zero_point"].const_value
    assert zero_points.dtype.name == "INT8"
    asymmetric = not symmetric and not quantized.sites.sites[0].depthwise
    assert np.any(zero_points.numpy() != 0) == asymmetric
    # A float output differs by the order of the sums; a requantized one by one rounding.
    step = quantized.steps()[0] * 1.001
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=max(step, 1e-5))


@pytest.mark.parametrize(
    "after",
    [
        "y = Relu (t)",
        "r = Relu (t) y = Tanh (r)",
        "r = Clip (t, zero) y = Tanh (r)",
        "r = Relu (t) k = Sigmoid (t) y = Add (r, k)",
        "y = Sum (t, row)",
        "y = Sum (row, t)",
        "y = Sigmoid (t)",
        "y = Add (t, t)",
        "y = Add (t, row)",
        "y = Add (row, t)",
        "k = Sigmoid (t) y = Add (t, k)",
    ],
)
@pytest.mark.parametrize("name", ["gemm", "gemm, no bias", "matmul", "matmul of rank 3"])
def test_linear_operator_with_a_float_output_stays_integer(name, after):
    # onnxruntime merges most of these into a float operator, or misses the QuantizeLinear
    quantized = quantize(linear(name, after))
    assert [s.requantize for s in quantized.sites.sites] == [False]
    feed = random_feed(quantized.source)
    expected = simulate(quantized, feed)
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert {"MatMulIntegerToFloat", "QGemm"} & coverage.integer.keys()
    assert not {op for op in coverage.floating if "Gemm" in op or "MatMul" in op}
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)
        # sigmoid and tanh of two libraries
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    check(quantized.model)


@pytest.mark.parametrize("order", ["Add (t, x)", "Add (x, t)"])
@pytest.mark.parametrize("shape", ["4, 8", "2, 4, 8", "N, 8", "N, T, 8"])
def test_a_residual_after_a_matmul_takes_no_kernel_from_it(shape, order):
    text = f"""
        g (float[{shape}] x) => (float[{shape}] y) <float[8, 8] w> {{
          t = MatMul (x, w)
          y = {order}
        }}"""
    quantized = quantize(text)
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert coverage.integer["MatMulIntegerToFloat"] == 1
    # what needs no cure gets none
    adds = {n.op_type for n in quantized.model.graph} & {"Add", "Sum"}
    assert adds == ({"Sum"} if len(shape.split(",")) == 2 else {"Add"})
    feed = random_feed(quantized.source)
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)
        np.testing.assert_allclose(found[0], simulate(quantized, feed)[0], rtol=1e-6, atol=1e-6)


@given(
    scale=st.floats(1e-3, 2.0),
    zero_point=st.integers(0, 255),
    lo=st.floats(-10, 0),
    width=st.floats(0.01, 30),
    seed=st.integers(0, 99),
)
def test_clipping_codes_is_clipping_before_rounding(scale, zero_point, lo, width, seed):
    text = f"""
        g (float[1, 1, 1, 200] x) => (float[1, 1, 1, 200] y)
        <float[1, 1, 1, 1] w = {{1}}, float lo = {{{lo}}}, float hi = {{{lo + width}}}> {{
          t = Conv (x, w)
          y = Clip (t, lo, hi)
        }}"""
    feed = {"x": normal((1, 1, 1, 200), seed, 5.0)}
    quantized = quantize(text, feeds=[feed], settings=ORDINARY)
    if not quantized.sites.sites[0].absorbed:  # a range without zero cannot be absorbed
        assert lo + width <= 0
        return
    decisions = dict(quantized.plan.tensors)
    # the range of the output is not the clip's: it may saturate before or after it
    fine = np.float32(scale)
    decisions["y"] = replace_decision(decisions["y"], scale=float(fine), zero_point=zero_point)
    quantized = quantize(text, feeds=[feed], settings=ORDINARY, decisions=decisions)
    by_x, by_y = (qparams(decisions[name]) for name in "xy")
    read = (codes_of(feed["x"], by_x) - by_x.zero_point.astype(np.float32)) * by_x.scale
    computed = read * np.float32(1)  # the weight 1 is exact: 127 steps of 1/127
    clipped = np.clip(computed, np.float32(lo), np.float32(lo + width))
    expected = (codes_of(clipped, by_y) - float(zero_point)).astype(np.float32) * fine
    found = run(quantized.model, feed)[0]
    # 127 * (1/127) in float32 is 1 to an ulp, which turns a rounding only at a tie
    differs = found != expected
    assert np.all(np.abs(found - expected)[differs] <= 1.001 * fine)
    assert differs.mean() < 0.05


def replace_decision(decision, **changes):
    import msgspec

    return msgspec.structs.replace(decision, **changes)
