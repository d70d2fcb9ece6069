"""QLinearConv: the sum of (x - zx)(w - zw), to the bit, and the float simulation to a step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.integer import codes, conv_sums, fuse, params, requantize, weights

GRAPH = """g ({kind}[N, {channels}, H, W] x) => ({kind}[A, B, C, D] y) {{
    f = DequantizeLinear (x, xs, xz)
    v = DequantizeLinear <axis = 0> (w, ws, wz)
    c = DequantizeLinear <axis = 0> (b, bs)
    t = Conv <pads = {pads}, strides = {strides}, dilations = {dilations}, group = {group}>
        (f, v, c)
    {then}
}}"""

QUANTIZED = "y = QuantizeLinear (t, ys, yz)"


@st.composite
def convolutions(draw):
    """Return attributes, codes and parameters of a 2-D convolution."""
    group = draw(st.sampled_from([1, 1, 2, 4]))
    depth = draw(st.sampled_from([1, 2, 3, 4])) if group > 1 else draw(st.sampled_from([3, 4, 8]))
    # multiples of 4 and 16 take kernels of their own
    out = group * draw(st.sampled_from([1, 3, 4, 8]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3)]))
    small = st.integers(1, 2)
    attributes = {
        "pads": [draw(st.integers(0, 1)) for _ in range(4)],
        "strides": [draw(small), draw(small)],
        "dilations": [draw(small), draw(small)],
        "group": group,
    }
    seed = draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    size = [
        draw(st.integers(1, 2)),
        group * depth,
        draw(st.integers(5, 9)),
        draw(st.integers(5, 9)),
    ]
    channels = out if draw(st.booleans()) else 1
    symmetric = draw(st.booleans())
    w = weights((out, depth, *kernel), seed)
    wz = np.zeros(channels) if symmetric else rng.integers(-9, 9, channels)
    if group > 1:
        wz[:] = wz[0]  # onnxruntime before 1.27 fails on depthwise weights with several
    one = () if channels == 1 else channels
    arrays = {
        **params(x=(0.02, draw(st.sampled_from([0, 7, 128, 255])))),
        **params(y=(draw(st.sampled_from([0.5, 0.11, 3.0])), draw(st.sampled_from([0, 120, 255])))),
        "w": w,
        "ws": rng.uniform(0.01, 0.2, channels).astype(np.float32).reshape(one),
        "wz": wz.astype(np.int8).reshape(one),
        "b": rng.integers(-9999, 9999, out).astype(np.int32),
    }
    # the operator wants one scale per element of the bias
    arrays["bs"] = np.broadcast_to(arrays["xs"] * arrays["ws"], (out,)).copy()
    return attributes, codes(size, seed), arrays


def expected(attributes, x, a):
    column = (-1, 1, 1, 1)
    w = a["w"].astype(np.int32) - np.reshape(a["wz"], column)
    sums = conv_sums(x.astype(np.int32) - int(a["xz"]), w, **attributes)
    sums += a["b"].reshape(1, -1, 1, 1)
    multiplier = (a["xs"] * a["ws"] / a["ys"]).reshape(-1, *(1, 1) if a["ws"].ndim else ())
    return requantize(sums, multiplier, a["yz"])


@settings(max_examples=30)
@given(convolution=convolutions())
def test_it_computes_the_integer_formula_to_the_bit(convolution):
    attributes, x, arrays = convolution
    text = GRAPH.format(kind="uint8", channels=x.shape[1], then=QUANTIZED, **attributes)
    pair = fuse(text, arrays)
    assert pair.op_types == ["QLinearConv"]
    simulated, found = pair.outputs({"x": x})
    np.testing.assert_array_equal(found[0], expected(attributes, x, arrays))
    # the simulation rounds products to float32: where it lies on an edge the code may be the next
    assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1


ATTRIBUTES = {"pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1}


def arrays(dtype="uint8", zero_point=100, scale=0.5):
    rng = np.random.default_rng(1)
    ws = rng.uniform(0.01, 0.2, 8).astype(np.float32)
    found = {
        **params(x=(0.02, 0), y=(scale, 0)),
        "w": weights((8, 4, 3, 3)),
        "ws": ws,
        "wz": np.zeros(8, np.int8),
        "b": rng.integers(-999, 999, 8).astype(np.int32),
        "bs": np.float32(0.02) * ws,
    }
    found["xz"] = np.asarray(3, dtype)
    found["yz"] = np.asarray(zero_point, dtype)
    return found


@pytest.mark.parametrize(
    ("then", "clip"),
    [
        ("r = Relu (t) y = QuantizeLinear (r, ys, yz)", (0, np.inf)),
        ("r = Clip (t, lo, hi) y = QuantizeLinear (r, ys, yz)", (-3.3, 9.1)),
        ("r = Clip (t, lo) y = QuantizeLinear (r, ys, yz)", (-3.3, np.inf)),
        ("r = Clip (t, lo, hi) s = Relu (r) y = QuantizeLinear (s, ys, yz)", (0, 9.1)),
    ],
)
@pytest.mark.parametrize("zero_point", [0, 100])
def test_relu_and_clip_are_absorbed_and_clip_the_codes_where_saturation_does_not(
    then, clip, zero_point
):
    a = arrays(zero_point=zero_point)
    bounds = {"lo": np.float32(-3.3), "hi": np.float32(9.1)}
    used = {n: np.asarray(v) for n, v in bounds.items() if f"{n}" in then.split("Quant")[0]}
    text = GRAPH.format(kind="uint8", channels=4, then=then, **ATTRIBUTES)
    pair = fuse(text, {**a, **used})
    x = codes((1, 4, 6, 6))
    bounds = [np.rint(end / a["ys"]) + zero_point for end in clip]
    wanted = np.clip(expected(ATTRIBUTES, x, a), *bounds)
    clipped = bool(bounds[0] > 0 or bounds[1] < 255)
    assert pair.op_types == ["QLinearConv", *["Clip"] * clipped]
    simulated, found = pair.outputs({"x": x})
    np.testing.assert_array_equal(found[0], wanted)
    assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1


@pytest.mark.parametrize(("dtype", "weight"), [("int8", "int8"), ("uint8", "uint8")])
def test_other_types_of_codes(dtype, weight):
    a = arrays(dtype, zero_point=-5 if dtype == "int8" else 9)
    if weight == "uint8":
        a["w"] = codes((8, 4, 3, 3))
        a["wz"] = codes((8,), 1)
    text = GRAPH.format(kind=dtype, channels=4, then=QUANTIZED, **ATTRIBUTES)
    pair = fuse(text, a)
    assert pair.op_types == ["QLinearConv"]
    x = codes((1, 4, 6, 6), dtype=dtype)
    simulated, found = pair.outputs({"x": x})
    np.testing.assert_array_equal(found[0], expected(ATTRIBUTES, x, a))
    assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1


@pytest.mark.parametrize("spatial", [1, 3])
def test_one_and_three_dimensions(spatial):
    a = arrays()
    a["w"] = weights((8, 4, *[3] * spatial))
    dims = ", ".join("DEF"[:spatial])
    text = GRAPH.format(kind="uint8", channels=4, then=QUANTIZED, **ATTRIBUTES)
    text = text.replace("[N, 4, H, W]", f"[N, 4, {dims}]").replace("B, C, D]", f"B, {dims}]")
    text = text.replace(
        "<pads = [1, 1, 1, 1], strides = [1, 1], dilations = [1, 1], group = 1>", ""
    )
    pair = fuse(text, a)
    assert pair.op_types == ["QLinearConv"]
    simulated, found = pair.outputs({"x": codes((1, 4, *[5] * spatial))})
    assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1


def test_weights_that_are_stored_in_four_bits_are_cast():
    import onnx_ir as ir

    a = arrays()
    text = GRAPH.format(kind="uint8", channels=4, then=QUANTIZED, **ATTRIBUTES)
    text = text.replace("v = Deq", "e = Cast <to = 3> (w) v = Deq").replace("(w, ws", "(e, ws")
    a["w"] = (a["w"] // 10).astype(np.int8)
    pair = fuse(text, a)
    narrow = pair.integer.graph.initializers["w"]
    # the text format has no 4-bit numbers
    narrow.const_value = ir.tensor(a["w"], dtype=ir.DataType.INT4, name="w")
    narrow.type = ir.TensorType(ir.DataType.INT4)
    assert pair.op_types == ["Cast", "QLinearConv"]
    x = codes((1, 4, 6, 6))
    np.testing.assert_array_equal(pair.outputs({"x": x})[1][0], expected(ATTRIBUTES, x, a))


SHORT = np.zeros(8, np.int16)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"then": "y = Identity (t)"}, "not read by one QuantizeLinear to uint8 alone"),
        ({"then": "y = QuantizeLinear (t, ys, short)"}, "its output is not read by one Quantize"),
        ({"bs": np.full(8, 0.5, np.float32)}, "the scale of its bias is not that of input times"),
        ({"w": codes((8, 4, 3, 3), dtype="int16"), "wz": SHORT}, "types uint8 and int16"),
    ],
)  # fmt: skip
def test_what_does_not_fit_stays_in_float_and_says_why(change, why):
    then = change.pop("then", QUANTIZED)
    a = {**arrays(), **change, "short": np.asarray(9, np.uint16)}
    text = GRAPH.format(kind="uint8", channels=4, then=then, **ATTRIBUTES)
    text = text.replace("(uint8[A", "(float[A") if "Identity" in then else text
    text = text.replace("(uint8[A", "(uint16[A") if "short" in then else text
    if "short" not in then:
        del a["short"]
    pair = fuse(text, a)
    [(name, op_type, reason)] = [e for e in pair.fused.left if e[1] == "Conv"]
    assert (name, op_type) == ("node 3: t", "Conv")
    assert why in reason
    assert not pair.fused.kernels
    simulated, found = pair.outputs({"x": codes((1, 4, 6, 6))})
    np.testing.assert_array_equal(found[0], simulated[0])


def test_a_float_weight_is_no_integer_convolution():
    a = arrays()
    a["w"] = a["w"].astype(np.float32)
    text = GRAPH.format(kind="uint8", channels=4, then=QUANTIZED, **ATTRIBUTES)
    pair = fuse(
        text.replace("v = DequantizeLinear <axis = 0> (w, ws, wz)", "").replace("f, v", "f, w"), a
    )
    assert pair.fused.left == (("node 2: t", "Conv", "its constant 'w' is in float"),)
