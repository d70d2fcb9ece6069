"""The QLinear operators of com.microsoft: within one step of the float simulation.

Their kernels compute in float32 or by tables, each in its own order: where the exact result lies on
the edge between two codes, they may give the other.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.integer import codes, fuse, params

QPARAMS = st.tuples(st.floats(2**-8, 2.0, width=32), st.sampled_from([0, 3, 128, 200, 255]))
IMAGES = "uint8[N, 4, H, W]"
READ = "f = DequantizeLinear (x, xs, xz)"
WRITE = "y = QuantizeLinear (t, ys, yz)"


def check(pair, feed, kernel):
    assert pair.op_types == [kernel]
    simulated, found = pair.outputs(feed)
    assert found[0].dtype == simulated[0].dtype
    assert np.abs(found[0].astype(int) - simulated[0]).max() <= 1
    return found[0]


@settings(max_examples=20)
@given(
    op_type=st.sampled_from(["Add", "Mul"]),
    shapes=st.sampled_from([((1, 4, 5, 7), (1, 4, 5, 7)), ((2, 4, 5, 7), (4, 1, 1)),
                            ((1, 4, 1, 1), (1, 4, 33, 3)), ((4, 3, 1), (1, 9))]),
    x=QPARAMS, v=QPARAMS, y=QPARAMS, seed=st.integers(0, 99),
)  # fmt: skip
def test_sums_and_products(op_type, shapes, x, v, y, seed):
    y = (y[0] * x[0] * v[0] * 100, y[1]) if op_type == "Mul" else (y[0] + x[0] + v[0], y[1])
    ranks = [", ".join("ABCD"[: len(s)]) for s in shapes]
    text = f"""g (uint8[{ranks[0]}] x, uint8[{ranks[1].lower()}] v) => (uint8[E, F, G, H] y) {{
        {READ} e = DequantizeLinear (v, vs, vz) t = {op_type} (f, e) {WRITE} }}"""
    if max(map(len, shapes)) == 3:
        text = text.replace("E, F, G, H", "E, F, G")
    pair = fuse(text, params(x=x, v=v, y=y))
    feed = {"x": codes(shapes[0], seed), "v": codes(shapes[1], seed + 1)}
    check(pair, feed, f"QLinear{op_type}")


@pytest.mark.parametrize("op_type", ["Add", "Mul"])
def test_a_constant_operand_is_read_as_codes(op_type):
    arrays = {**params(x=(0.1, 9), v=(0.02, 0), y=(0.2, 7)), "v": np.asarray(255, np.uint8)}
    text = f"""g ({IMAGES} x) => ({IMAGES} y) {{
        {READ} e = DequantizeLinear (v, vs, vz) t = {op_type} (e, f) {WRITE} }}"""
    check(fuse(text, arrays), {"x": codes((1, 4, 5, 5))}, f"QLinear{op_type}")


@settings(max_examples=20)
@given(
    node=st.sampled_from(["Sigmoid (f)", "LeakyRelu <alpha = 0.2> (f)", "GlobalAveragePool (f)"]),
    x=QPARAMS, y=QPARAMS, signed=st.booleans(),
)  # fmt: skip
def test_unary_operators(node, x, y, signed):
    kind = "int8" if signed else "uint8"
    text = f"g ({kind}[N, 4, H, W] x) => ({kind}[N, C, H, W] y) {{ {READ} t = {node} {WRITE} }}"
    arrays = params(x=x, y=y)
    if signed:
        arrays |= {
            n: (a.astype(int) - 128).astype(np.int8) for n, a in arrays.items() if n[1] == "z"
        }
    feed = {"x": codes((2, 4, 6, 6), dtype=kind)}
    check(fuse(text, arrays), feed, f"QLinear{node.split()[0]}")


@pytest.mark.parametrize("kernel", ["[2]", "[2, 3]", "[2, 2, 2]"])
@pytest.mark.parametrize(
    "attributes",
    [
        "",
        ", strides = {twice}",
        ", pads = {ones}, count_include_pad = 1",
        ", pads = {ones}, strides = {twice}",
        ", strides = {twice}, ceil_mode = 1",
        ', auto_pad = "SAME_UPPER"',
        ", dilations = {once}",
    ],
)
def test_averages_over_windows(kernel, attributes):
    rank = kernel.count(",") + 1
    given_ = {"twice": [2] * rank, "ones": [1] * 2 * rank, "once": [1] * rank}
    node = f"AveragePool <kernel_shape = {kernel}{attributes.format(**given_)}> (f)"
    dims = ", ".join("HWD"[:rank])
    text = f"g (uint8[N, 4, {dims}] x) => (uint8[N, 4, {dims}] y) {{ {READ} t = {node} {WRITE} }}"
    text = text.replace(f"=> (uint8[N, 4, {dims}]", f"=> (uint8[N, 4, {dims.lower()}]")
    pair = fuse(text, params(x=(0.1, 9), y=(0.08, 30)))
    check(pair, {"x": codes((2, 4, *[7] * rank))}, "QLinearAveragePool")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ("dilations = [2, 2]", "the kernel knows no dilations"),
        ("ceil_mode = 1, count_include_pad = 1", "the kernel counts what ceil_mode adds"),
    ],
)
def test_averages_that_the_kernel_takes_otherwise_stay_in_float(attributes, why):
    text = f"""g ({IMAGES} x) => (uint8[N, 4, h, w] y) {{
        {READ} t = AveragePool <kernel_shape = [2, 2], strides = [2, 2], {attributes}> (f)
        {WRITE} }}"""
    pair = fuse(text, params(x=(0.1, 9), y=(0.08, 30)))
    [(_, op_type, reason)] = pair.fused.left
    assert op_type == "AveragePool"
    assert why in reason
    # onnxruntime would not load the first and take the second for its own kernel
    assert "Sum" in pair.op_types
    simulated, found = pair.outputs({"x": codes((2, 4, 7, 7))})
    np.testing.assert_array_equal(found[0], simulated[0])


@pytest.mark.parametrize("axis", ["", "<axis = 1>", "<axis = -1>", "<axis = -2>"])
@pytest.mark.parametrize("scale", [1 / 256, 1 / 255, 0.0047, 0.3])
def test_softmax(axis, scale):
    text = f"g ({IMAGES} x) => ({IMAGES} y) {{ {READ} t = Softmax {axis} (f) {WRITE} }}"
    pair = fuse(text, params(x=(0.05, 100), y=(scale, 0)))
    # the kernel takes the whole part of 1 / scale: less than one code away
    check(pair, {"x": codes((2, 4, 5, 9))}, "QLinearSoftmax")


def test_softmax_to_int8_that_would_wrap_stays_in_float():
    text = f"g (int8[N, 9] x) => (int8[N, 9] y) {{ {READ} t = Softmax (f) {WRITE} }}"
    arrays = {**params(x=(0.3, 0), y=(1 / 256, 0))}
    arrays |= {"xz": np.asarray(0, np.int8), "yz": np.asarray(-128, np.int8)}
    feed = {"x": codes((3, 9), dtype="int8")}
    # probability 1 is code 127 or 128
    assert fuse(text, arrays).fused.left[0][2].startswith("the kernel does not saturate int8")
    arrays["ys"] = np.float32(1 / 255.5).reshape(())
    check(fuse(text, arrays), feed, "QLinearSoftmax")


@settings(max_examples=20)
@given(x=QPARAMS, v=QPARAMS, y=QPARAMS)
def test_where(x, v, y):
    text = f"""g (bool[4, 1, W] c, uint8[N, 4, H, W] x, uint8[W] v) => (uint8[N, 4, H, W] y) {{
        {READ} e = DequantizeLinear (v, vs, vz) t = Where (c, f, e) {WRITE} }}"""
    condition = np.random.default_rng(0).random((4, 1, 6)) < 0.5
    feed = {"c": condition, "x": codes((2, 4, 5, 6)), "v": codes((6,), 1)}
    check(fuse(text, params(x=x, v=v, y=y)), feed, "QLinearWhere")


CONCAT = f"""g ({IMAGES} x, uint8[N, 2, H, W] v) => (uint8[N, 10, H, W] y) {{
    {READ} e = DequantizeLinear (v, vs, vz) t = Concat <axis = -3> (f, e, f) {WRITE} }}"""


@settings(max_examples=20)
@given(x=QPARAMS, v=QPARAMS, y=QPARAMS)
def test_concatenations_rescale(x, v, y):
    assume(len({x, v, y}) > 1)
    feed = {"x": codes((2, 4, 5, 6)), "v": codes((2, 2, 5, 6), 1)}
    check(fuse(CONCAT, params(x=x, v=v, y=y)), feed, "QLinearConcat")


def test_concatenations_of_equal_scales_copy():
    equal = (0.1, 7)
    pair = fuse(CONCAT, params(x=equal, v=equal, y=equal))
    feed = {"x": codes((2, 4, 5, 6)), "v": codes((2, 2, 5, 6), 1)}
    wanted = np.concatenate([feed["x"], feed["v"], feed["x"]], axis=1)
    np.testing.assert_array_equal(check(pair, feed, "Concat"), wanted)


def test_operands_of_different_types_stay_in_float():
    arrays = {**params(x=(0.1, 9), v=(0.1, 9), y=(0.1, 9)), "vz": np.asarray(0, np.int8)}
    text = f"""g ({IMAGES} x, int8[N, 4, H, W] v) => ({IMAGES} y) {{
        {READ} e = DequantizeLinear (v, vs, vz) t = Add (f, e) {WRITE} }}"""
    pair = fuse(text, arrays)
    assert [entry[1:] for entry in pair.fused.left] == [
        ("Add", "its operands have codes of different types")
    ]


def test_what_has_no_kernel_is_named():
    text = f"g ({IMAGES} x) => ({IMAGES} y) {{ {READ} t = HardSwish (f) {WRITE} }}"
    assert fuse(text, params(x=(0.1, 9), y=(0.1, 9))).fused.left == (
        ("node 1: t", "HardSwish", "no kernel for HardSwish"),
    )
