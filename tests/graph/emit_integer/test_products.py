"""QLinearMatMul, MatMulIntegerToFloat and QGemm: integer sums to the bit, codes or floats out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.integer import codes, fuse, params, requantize, weights

SIZES = st.integers(1, 20)


@st.composite
def factors(draw, batch=()):
    """Return rows of codes, a weight, and their parameters."""
    m, k, n = draw(SIZES), draw(SIZES), draw(SIZES)
    seed = draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    per_channel, symmetric = draw(st.booleans()), draw(st.booleans())
    channels = n if per_channel else 1
    shape = (n,) if per_channel else ()
    a = {
        **params(x=(0.03, draw(st.sampled_from([0, 9, 128, 255])))),
        **params(y=(draw(st.sampled_from([0.25, 0.7])), draw(st.sampled_from([0, 77, 255])))),
        "w": weights((k, n), seed),
        "ws": rng.uniform(0.01, 0.2, channels).astype(np.float32).reshape(shape),
        "wz": (rng.integers(-9, 9, channels) * (not symmetric)).astype(np.int8).reshape(shape),
    }
    a["b"] = rng.integers(-9999, 9999, n).astype(np.int32)
    a["bs"] = np.broadcast_to(a["xs"] * a["ws"], (n,)).copy()
    return codes((*batch, m, k), seed), a


def sums(x, a):
    w = a["w"].astype(np.int64) - a["wz"]
    return (x.astype(np.int64) - int(a["xz"])) @ w


def without(a, *names):
    return {name: array for name, array in a.items() if name not in names}


#: A weight with one scale.
FACTORS = {
    **params(x=(0.03, 90)),
    "w": weights((6, 4)),
    "ws": np.float32(0.1).reshape(()),
    "wz": np.int8(0).reshape(()),
}

READ = "f = DequantizeLinear (x, xs, xz) v = DequantizeLinear <axis = 1> (w, ws, wz)"


@settings(max_examples=20)
@given(given_=factors(batch=(2, 3)))
def test_a_requantized_product_is_the_integer_formula_to_the_bit(given_):
    x, a = given_
    text = f"""g (uint8[A, B, M, {x.shape[-1]}] x) => (uint8[A, B, M, N] y) {{
        {READ} t = MatMul (f, v) y = QuantizeLinear (t, ys, yz) }}"""
    pair = fuse(text, without(a, "b", "bs"))
    assert pair.op_types == ["QLinearMatMul"]
    simulated, found = pair.outputs({"x": x})
    np.testing.assert_array_equal(
        found[0], requantize(sums(x, a), a["xs"] * a["ws"] / a["ys"], a["yz"])
    )
    assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1


@settings(max_examples=20)
@given(given_=factors(batch=(2,)), add=st.sampled_from(["", "Add", "Sum"]), rank=st.integers(1, 3))
def test_a_product_in_float_takes_the_bias_that_is_added(given_, add, rank):
    x, a = given_
    n = a["w"].shape[1]
    a["c"] = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    a["c"] = a["c"].reshape(*[1] * (rank - 1), n)
    then = f"y = {add} (t, c)" if add else "y = Identity (t)"
    text = f"""g (uint8[A, M, {x.shape[-1]}] x) => (float[A, M, N] y) {{
        {READ} t = MatMul (f, v) {then} }}"""
    pair = fuse(text, without(a, "b", "bs", "ys", "yz", *([] if add else ["c"])))
    assert pair.op_types == ["MatMulIntegerToFloat", *([] if add else ["Identity"])]
    simulated, found = pair.outputs({"x": x})
    wanted = sums(x, a) * np.float64(a["xs"]) * a["ws"] + (a["c"] if add else 0)
    # products and sums in float32, of numbers of this size
    room = 4e-7 * np.abs(wanted).max(initial=1)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-6, atol=room)
    largest = np.abs(x.astype(float) - a["xz"]).sum(-1).max() * 73 * a["xs"] * a["ws"].max()
    np.testing.assert_allclose(found[0], simulated[0], rtol=1e-5, atol=1e-6 * max(1, largest))


@settings(max_examples=20)
@given(
    given_=factors(),
    transposed=st.booleans(),
    bias=st.sampled_from(["", "vector", "row"]),
    requantized=st.booleans(),
)
def test_gemm_is_the_integer_formula_to_the_bit(given_, transposed, bias, requantized):
    x, a = given_
    acc = sums(x, a) + (a["b"] if bias else 0)
    k, n = a["w"].shape
    if transposed:
        a["w"] = np.ascontiguousarray(a["w"].T)
    if bias == "row":
        a["b"] = a["b"].reshape(1, n)
    read = READ.replace("axis = 1", f"axis = {0 if transposed else 1}")
    addend = f"c = DequantizeLinear <axis = {a['b'].ndim - 1}> (b, bs)" if bias else ""
    then = "y = QuantizeLinear (t, ys, yz)" if requantized else "y = Identity (t)"
    text = f"""g (uint8[M, {k}] x) => ({"uint8" if requantized else "float"}[M, N] y) {{
        {read} {addend}
        t = Gemm <transB = {int(transposed)}> (f, v{", c" if bias else ""}) {then} }}"""
    unused = [*([] if bias else ["b", "bs"]), *([] if requantized else ["ys", "yz"])]
    pair = fuse(text, without(a, *unused))
    assert pair.op_types == ["QGemm", *([] if requantized else ["Identity"])]
    simulated, found = pair.outputs({"x": x})
    if requantized:
        wanted = requantize(acc, a["xs"] * a["ws"] / a["ys"], a["yz"])
        np.testing.assert_array_equal(found[0], wanted)
        assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1
    else:
        wanted = acc.astype(np.float32) * (a["xs"] * a["ws"])
        np.testing.assert_array_equal(found[0], wanted)
        # the simulation adds the rounded products in float32
        np.testing.assert_allclose(found[0], simulated[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 131), ("int8", -3)])
def test_two_activations_are_multiplied(dtype, zero_point):
    arrays = params(x=(0.03, 90), y=(1.7, 100))
    arrays |= {"vs": np.float32(0.05).reshape(()), "vz": np.asarray(zero_point, dtype)}
    text = f"""g (uint8[N, H, L, 6] x, {dtype}[N, H, 6, R] v)
        => (uint8[N, H, L, R] y, float[N, H, L, R] z) {{
        f = DequantizeLinear (x, xs, xz) e = DequantizeLinear (v, vs, vz)
        t = MatMul (f, e) y = QuantizeLinear (t, ys, yz)
        z = MatMul (f, e) }}"""
    pair = fuse(text, arrays)
    assert sorted(pair.op_types) == ["MatMulIntegerToFloat", "QLinearMatMul"]
    x = codes((1, 2, 5, 6))
    v = codes((1, 2, 6, 7)) if dtype == "uint8" else weights((1, 2, 6, 7))
    simulated, found = pair.outputs({"x": x, "v": v})
    acc = (x.astype(int) - 90) @ (v.astype(int) - zero_point)
    multiplier = arrays["xs"] * arrays["vs"]
    np.testing.assert_array_equal(
        found[0], requantize(acc, multiplier / arrays["ys"], arrays["yz"])
    )
    np.testing.assert_array_equal(found[1], acc.astype(np.float32) * multiplier)
    assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1
    np.testing.assert_allclose(found[1], simulated[1], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "kept"), [((1, 4), True), ((4,), False), ((), True), ((1,), True)]
)
def test_a_constant_that_would_add_axes_or_is_no_row_is_left_to_add(shape, kept):
    arrays = {**FACTORS, "c": np.ones(shape, np.float32)}
    # a vector times a matrix is a vector
    text = f"""g (uint8[6] x) => (float y) {{
        {READ} t = MatMul (f, v) s = Add (t, c) y = ReduceMax <keepdims = 0> (s) }}"""
    pair = fuse(text, arrays)
    assert ("Add" in pair.op_types) == kept
    simulated, found = pair.outputs({"x": codes((6,))})
    np.testing.assert_allclose(found[0], simulated[0], rtol=1e-5, atol=1e-4)


def test_a_sum_that_kept_the_runtime_from_merging_goes():
    arrays = FACTORS
    text = f"""g (uint8[N, 6] x) => (float[N, 4] y) {{
        {READ} t = MatMul (f, v) s = Sum (t) y = Relu (s) }}"""
    assert fuse(text, arrays).op_types == ["MatMulIntegerToFloat", "Relu"]


@pytest.mark.parametrize("other", ["y = Add (t, r) r = Neg (t)", "y = Add (t, t)"])
def test_only_a_constant_that_nothing_else_waits_for_is_absorbed(other):
    first, *rest = other.split(" r = ")
    body = f"r = {rest[0]} {first}" if rest else first
    arrays = FACTORS
    pair = fuse(
        f"g (uint8[N, 6] x) => (float[N, 4] y) {{ {READ} t = MatMul (f, v) {body} }}", arrays
    )
    assert pair.op_types[0] == "MatMulIntegerToFloat"
    assert "Add" in pair.op_types


PER_ROW = {"ws": np.ones(6, np.float32), "wz": np.zeros(6, np.int8)}
SHORT = {"w": codes((6, 4), dtype="int16"), "wz": np.int16(0).reshape(())}


@pytest.mark.parametrize(
    ("node", "change", "why"),
    [
        (
            "MatMul (f, v)",
            {"w": weights((2, 6, 4)), **PER_ROW},
            "a batch of matrices must have one",
        ),
        ("MatMul (f, v)", SHORT, "no kernel multiplies codes of types uint8 and int16"),
        ("Gemm <alpha = 0.5> (f, v)", {}, "its alpha, beta or transA is not the default"),
        ("Gemm <transB = 1> (f, v)", {"w": weights((4, 6)), **PER_ROW}, "than output channels"),
        ("Gemm (f, v, c)", {"c": np.ones(4, np.float32)}, "its constant 'c' is in float"),
    ],
)
def test_what_does_not_fit_stays_in_float_and_says_why(node, change, why):
    arrays = {**FACTORS, **change}
    rank = arrays["w"].ndim
    text = f"""g (uint8[N, 6] x) => (float[{", ".join("ABC"[:rank])}] y) {{ {READ} y = {node} }}"""
    [(_, op_type, reason)] = fuse(text, arrays).fused.left
    assert op_type == node.split()[0]
    assert why in reason
