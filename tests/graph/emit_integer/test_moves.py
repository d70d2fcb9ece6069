"""What only moves codes gives the codes that the simulation gives, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.integer import codes, fuse, params

READ = "f = DequantizeLinear (x, xs, xz)"
WRITE = "y = QuantizeLinear (t, xs, xz)"
SAME = params(x=(0.1, 9))
PADDED = {"pads": np.array([0, 0, 1, 2, 0, 0, 0, 1])}

MODE = "coordinate_transformation_mode"

#: Nodes on an input of (2, 4, 6, 6), with the rank of what they put out.
MOVES = {
    "Transpose <perm = [0, 2, 3, 1]> (f)": 4,
    "Reshape (f, shape)": 3,
    "Flatten (f)": 2,
    "Slice (f, start, end)": 4,
    "Unsqueeze (f, one)": 5,
    "Squeeze (Z, one)": 4,
    "Expand (Z, big)": 5,
    "Tile (f, repeats)": 4,
    "Gather <axis = 1> (f, taken)": 4,
    "GatherElements <axis = 3> (f, elements)": 4,
    "GatherND (f, point)": 3,
    "DepthToSpace <blocksize = 2> (f)": 4,
    "SpaceToDepth <blocksize = 2> (f)": 4,
    "MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (f)": 4,
    "ReduceMax <keepdims = 0> (f, one)": 3,
    "ReduceMin (f, one)": 4,
    'Resize <mode = "nearest"> (f, , scales)': 4,
    f'Resize <mode = "nearest", {MODE} = "asymmetric", nearest_mode = "floor"> (f, , , sizes)': 4,
}

OPERANDS = {
    "shape": np.array([2, 4, 36]),
    "start": np.array([0, 1]),
    "end": np.array([2, 3]),
    "one": np.array([1]),
    "big": np.array([2, 3, 4, 6, 6]),
    "repeats": np.array([1, 2, 1, 1]),
    "taken": np.array([3, 0, -1]),
    "elements": np.zeros((2, 4, 6, 3), np.int64),
    "point": np.array([[1], [0]]),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "sizes": np.array([2, 4, 9, 4]),
}


def written(node):
    """Return a node's text, and the constants that it reads."""
    if "Z" in node:
        node = node.replace("Z", "u")
    return node, {
        n: a for n, a in OPERANDS.items() if n in node.split("(")[1].replace(")", "").split(", ")
    }


def graph(node, rank, kind="uint8", then=WRITE, out=None):
    before = "u = Unsqueeze (f, one)" if "(u" in node else ""
    dims = ", ".join("ABCDE"[:rank])
    return f"""g ({kind}[N, 4, H, W] x) => ({out or kind}[{dims}] y) {{
        {READ} {before} t = {node} {then} }}"""


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("move", MOVES)
def test_codes_are_moved(move, kind):
    node, constants = written(move)
    arrays = {**SAME, "xz": np.asarray(9, kind), **constants}
    if "(u" in node:
        arrays["one"] = OPERANDS["one"]
    pair = fuse(graph(node, MOVES[move], kind), arrays)
    assert pair.op_types == [*["Unsqueeze"] * ("(u" in node), node.split()[0]]
    assert pair.fused.conversions == 0
    simulated, found = pair.outputs({"x": codes((2, 4, 6, 6), dtype=kind)})
    np.testing.assert_array_equal(found[0], simulated[0])


def test_sixteen_bits_are_moved_and_not_computed_with():
    arrays = {**SAME, "xz": np.asarray(9, np.uint16)}
    pair = fuse(graph("Transpose <perm = [0, 2, 3, 1]> (f)", 4, "uint16"), arrays)
    assert pair.op_types == ["Transpose"]
    pair = fuse(graph("Sigmoid (f)", 4, "uint16"), arrays)
    assert pair.fused.left[0][1:] == ("Sigmoid", "no kernel takes codes of type uint16")


CROP = f'{MODE} = "tf_crop_and_resize", extrapolation_value = 7.0'


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ('Resize <mode = "linear"> (f, , scales)', "it interpolates"),
        (f"Resize <{CROP}> (f, roi, scales)", "it would take extrapolation_value for a code"),
    ],
)
def test_what_makes_new_values_stays_in_float(node, why):
    arrays = {**SAME, "scales": OPERANDS["scales"]}
    if "roi" in node:
        arrays["roi"] = np.array([0, 0, 0, 0, 1, 1, 1.5, 1.5], np.float32)
    assert fuse(graph(node, 4), arrays).fused.left[0][2] == why


def test_a_max_pool_of_which_the_indices_are_read_stays_in_float():
    text = f"""g (uint8[N, 4, H, W] x) => (uint8[N, 4, A, B] y, int64[N, 4, A, B] i) {{
        {READ} t, i = MaxPool <kernel_shape = [2, 2]> (f) {WRITE} }}"""
    assert fuse(text, SAME).fused.left[0][2] == "its indices are wanted"


@pytest.mark.parametrize("other", [(0.2, 9), (0.1, 8)])
def test_another_scale_stays_a_requantization(other):
    # ReduceMax does not pass DequantizeLinear on; a Transpose does, and the conversions follow it
    arrays = {**SAME, **params(y=other)}
    write = "y = QuantizeLinear (t, ys, yz)"
    pair = fuse(graph("ReduceMax (f)", 4, then=write), arrays)
    assert pair.op_types == ["DequantizeLinear", "ReduceMax", "QuantizeLinear"]
    pair = fuse(graph("Transpose (f)", 4, then=write), arrays)
    assert pair.op_types == ["Transpose", "DequantizeLinear", "QuantizeLinear"]
    simulated, found = pair.outputs({"x": codes((2, 4, 6, 6))})
    np.testing.assert_array_equal(found[0], simulated[0])


def test_a_split_is_moved_with_all_that_it_puts_out():
    text = f"""g (uint8[N, 4, H, W] x) => (uint8[N, 1, H, W] y, float[N, 1, H, W] z) {{
        {READ} t, u, v = Split <axis = 1> (f, parts) {WRITE}
        q = QuantizeLinear (v, xs, xz) z = Neg (u) }}"""
    pair = fuse(text, {**SAME, "parts": np.array([1, 1, 2])})
    assert pair.op_types == ["Split", "DequantizeLinear", "Neg"]
    assert [v.name for v in pair.integer.graph[0].outputs] == ["y", "u/quantized", "v"]
    simulated, found = pair.outputs({"x": codes((2, 4, 6, 6))})
    for first, second in zip(simulated, found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_dequantizing_waits_until_after_a_move_unless_something_else_needs_it():
    text = f"""g (uint8[N, 4, H, W] x) => (float[A, B, C, D] y) {{
        {READ} t = Transpose (f) y = Neg (t) }}"""
    pair = fuse(text, SAME)
    assert pair.op_types == ["Transpose", "DequantizeLinear", "Neg"]
    simulated, found = pair.outputs({"x": codes((2, 4, 6, 6))})
    np.testing.assert_array_equal(found[0], simulated[0])
    shared = text.replace(") {", ", float[N, 4, H, W] z) {").replace("t = ", "z = Abs (f) t = ")
    assert fuse(shared, SAME).op_types == ["DequantizeLinear", "Abs", "Transpose", "Neg"]


def test_rows_are_taken_from_a_table_of_codes():
    arrays = {**SAME, "xz": np.asarray(0, np.int8), "x": codes((30, 6), dtype="int8")}
    text = f"""g (int64[N, L] i) => (float[N, L, 6] y, float[N, L, 6] z) {{
        {READ} t = Gather (f, i) y = Neg (t) z = Gather (f, i) }}"""
    pair = fuse(text, arrays)
    assert sorted(pair.op_types) == [
        "DequantizeLinear",
        "DequantizeLinear",
        "Gather",
        "Gather",
        "Neg",
    ]
    assert pair.fused.left == (("node 2: y", "Neg", "no kernel for Neg"),)
    simulated, found = pair.outputs({"i": np.array([[0, 29, 3]])})
    for first, second in zip(simulated, found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_what_a_moved_dequantize_linear_would_tempt_the_runtime_with_is_kept_apart():
    arrays = {**SAME, "x": codes((30, 4, 5, 5)), "w": np.ones((4, 4, 1, 1), np.float32) / 7}
    text = f"""g (int64[N] i) => (uint8[N, 4, 5, 5] y) {{
        {READ} g = Gather (f, i) t = Conv (g, w) {WRITE} }}"""
    pair = fuse(text, arrays)
    assert pair.op_types == ["Gather", "DequantizeLinear", "Sum", "Conv", "QuantizeLinear"]
    simulated, found = pair.outputs({"i": np.array([3, 0])})
    np.testing.assert_array_equal(found[0], simulated[0])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("value", [None, 0.0, 1.3, -50.0])
def test_padding_is_done_with_the_code_of_its_value(mode, value):
    inputs = "f, pads" if value is None else "f, pads, value"
    arrays = {**SAME, **PADDED} | (
        {} if value is None else {"value": np.asarray(value, np.float32)}
    )
    pair = fuse(graph(f'Pad <mode = "{mode}"> ({inputs})', 4), arrays)
    assert pair.op_types == ["Pad"]
    simulated, found = pair.outputs({"x": codes((2, 4, 6, 6))})
    np.testing.assert_array_equal(found[0], simulated[0])


def test_padding_of_some_axes():
    arrays = {**SAME, "pads": np.array([1, 2]), "axes": np.array([-1])}
    pair = fuse(graph("Pad (f, pads, , axes)", 4), arrays)
    assert pair.op_types == ["Pad"]
    simulated, found = pair.outputs({"x": codes((2, 4, 6, 6))})
    np.testing.assert_array_equal(found[0], simulated[0])


@given(
    bounds=st.sampled_from([(0, None), (-0.35, 2.05), (None, 3.0), (-99, 99), (0.5, 0.5)]),
    later=st.sampled_from(["", "Relu"]),
    zero_point=st.sampled_from([0, 9, 255]),
)
def test_a_clip_between_equal_scales_clips_the_codes(bounds, later, zero_point):
    named = dict(zip(("lo", "hi"), bounds, strict=True))
    arrays = {n: np.asarray(v, np.float32) for n, v in named.items() if v is not None}
    node = f"Clip (f, {'lo' if 'lo' in arrays else ''}, {'hi' if 'hi' in arrays else ''})"
    then = f"r = Relu (t) {WRITE.replace('(t', '(r')}" if later else WRITE
    text = graph(node.replace(", )", ")"), 4, then=then)
    pair = fuse(text, {**params(x=(0.1, zero_point)), **arrays})
    assert pair.op_types == ["Clip"]
    simulated, found = pair.outputs({"x": codes((2, 4, 6, 6))})
    np.testing.assert_array_equal(found[0], simulated[0])


def test_a_relu_between_equal_scales_clips_the_codes():
    pair = fuse(graph("Relu (f)", 4), SAME)
    assert pair.op_types == ["Clip"]
    x = codes((2, 4, 6, 6))
    np.testing.assert_array_equal(pair.outputs({"x": x})[1][0], np.maximum(x, 9))
