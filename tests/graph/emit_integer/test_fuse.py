"""What holds for every fused graph: values, names, outputs, readers, and what the report says."""

import pkgutil

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from support.integer import codes, conv_sums, fuse, fuse_model, params, requantize, weights
from support.models import load, random_feed
from support.nets import ORDINARY, Settings, normal, quantize, run, to_bytes
from support.random_graphs import exact_feed, graphs

import ptq.graph.emit_integer.rules
from ptq.graph.emit_integer.registry import rules
from ptq.graph.publish import Draft
from ptq.runtime.coverage import measure_coverage


def integer_coverage(pair, quantized, tmp):
    path = tmp / "model.onnx"
    path.write_bytes(to_bytes(pair.integer))
    return measure_coverage(path, quantized.site_names)


@settings(max_examples=20)
@given(graph=graphs(), excluded=st.lists(st.integers(0, 9), max_size=2))
def test_any_graph_computes_the_same_to_the_bit_fused_here_or_by_the_runtime(
    graph, excluded, tmp_path_factory
):
    text, initializers, tensors = graph
    kinds = ("Conv", "Relu", "Clip", "Add", "MaxPool", "Concat", "Transpose", "Slice")
    kept = [(f"{kind}:{tensors[i % len(tensors)]}", "kept") for i in excluded for kind in kinds]
    settings_ = Settings(keep_float=tuple(kept))
    quantized = quantize(text, initializers, feeds=[exact_feed()], settings=settings_)
    pair = fuse_model(quantized.model)
    # scales are powers of two: nothing is rounded but to codes
    simulated, found = pair.outputs(exact_feed(1))
    for wanted, array in zip(simulated, found, strict=True):
        np.testing.assert_array_equal(array, wanted)
    theirs, ours = (
        quantized.coverage(),
        integer_coverage(pair, quantized, tmp_path_factory.mktemp("m")),
    )
    assert ours.unfused == ()
    assert not ours.floating - theirs.floating
    linear = [site for site in quantized.sites.sites if site.rule.role == "linear"]
    assert pair.fused.kernels["QLinearConv"] == len(linear)


#: One graph of everything that `ptq` quantizes by default, on dynamic axes.
NET = """
g (float[N, 4, H, W] x) => (float[N, 10] y) <
  float[16, 4, 3, 3] w0, float[16] b0, float[16, 1, 3, 3] w1, float[16, 16, 1, 1] w2,
  float[10, 32] g0, float[10] g1, float[6, 10] u0, int64[2] parts = {8, 8},
  float six = {6}, float zero = {0}, float[10] last, float[10, 10] m0>
{
  a0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
  a1 = Clip (a0, zero, six)
  a2 = Conv <pads = [1, 1, 1, 1], group = 16> (a1, w1)
  a3 = LeakyRelu <alpha = 0.1> (a2)
  a4 = Conv (a3, w2)
  a5 = Add (a4, a1)
  p, q = Split <axis = 1> (a5, parts)
  s = Sigmoid (q)
  a6 = Mul (p, s)
  a7 = Concat <axis = 1> (a6, a5, q)
  a8 = GlobalAveragePool (a7)
  a9 = Flatten (a8)
  b = Gemm <transB = 1> (a9, g0, g1)
  c = MatMul (b, m0)
  y = Add (c, last)
}"""

KERNELS = {
    "QLinearConv": 3, "QLinearLeakyRelu": 1, "QLinearAdd": 1, "Split": 1, "QLinearSigmoid": 1,
    "QLinearMul": 1, "Concat": 1, "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1,
    "MatMulIntegerToFloat": 1,
}  # fmt: skip


@pytest.mark.parametrize("scales", [Settings(), ORDINARY], ids=["powers of two", "ordinary"])
@pytest.mark.parametrize("shape", [(1, 4, 12, 12), (3, 4, 7, 9)])
def test_a_network_with_dynamic_axes_becomes_integer(scales, shape, tmp_path):
    feeds = [{"x": normal((1, 4, 12, 12), seed)} for seed in range(3)]
    quantized = quantize(NET, feeds=feeds, settings=scales)
    pair = fuse_model(quantized.model)
    assert pair.fused.kernels == KERNELS
    assert (pair.fused.left, pair.fused.conversions) == ((), 1)
    assert integer_coverage(pair, quantized, tmp_path).unfused == ()
    feed = {"x": normal(shape, 7)}
    theirs = run(pair.qdq, feed, "all")
    for level in ("disabled", "all"):
        np.testing.assert_array_equal(run(pair.integer, feed, level)[0], theirs[0])


def test_fused_nodes_keep_the_names_of_the_float_operators():
    quantized = quantize(NET)
    pair = fuse_model(quantized.model)
    names = {node.name for node in pair.integer.graph}
    assert set(quantized.site_names) <= names
    values = {v.name for node in pair.integer.graph for v in node.outputs}
    assert {"a1/quantized", "a5/quantized", "p/quantized"} <= values


def test_the_file_is_smaller_and_is_published_as_any_other(tmp_path):
    quantized = quantize(NET)
    pair = fuse_model(quantized.model)
    with Draft(tmp_path / "integer.onnx") as draft:
        draft.save(pair.integer)
        draft.check()
        assert draft.size_bytes < len(to_bytes(pair.qdq))
    # shapes and types of what is inside would outweigh the weights that were saved
    assert not ir.to_proto(pair.integer).graph.value_info


def test_nothing_is_left_that_nobody_reads():
    pair = fuse_model(quantize(NET).model)
    unread = [n for n, v in pair.integer.graph.initializers.items() if not v.uses()]
    assert unread == []
    assert "DequantizeLinear" not in pair.op_types


def test_the_domain_is_imported_only_where_it_is_used():
    text = """g (uint8[N, 4, H, W] x) => (uint8[N, 4, H, W] y) {
        f = DequantizeLinear (x, xs, xz) t = Transpose <perm = [0, 1, 3, 2]> (f)
        y = QuantizeLinear (t, xs, xz) }"""
    assert dict(fuse(text, params(x=(0.1, 9))).integer.opset_imports) == {"": 21}
    added = text.replace("Transpose <perm = [0, 1, 3, 2]> (f)", "Add (f, f)")
    assert fuse(added, params(x=(0.1, 9))).integer.opset_imports["com.microsoft"] == 1


CONV = {
    "w": weights((4, 4, 1, 1)),
    "ws": np.full(4, 0.125, np.float32),
    "wz": np.zeros(4, np.int8),
}
READ = "f = DequantizeLinear (x, xs, xz) v = DequantizeLinear <axis = 0> (w, ws, wz)"
ATTRIBUTES = {"pads": [0] * 4, "strides": [1, 1], "dilations": [1, 1], "group": 1}


def sums(x, zero_point):
    return conv_sums(x.astype(int) - zero_point, CONV["w"], **ATTRIBUTES)


def test_a_pair_of_different_scales_multiplies():
    text = f"""g (uint8[N, 4, H, W] x) => (uint8[N, 4, H, W] y) {{
        {READ} t = Conv (f, v) q = QuantizeLinear (t, ys, yz)
        g = DequantizeLinear (q, us, uz) z = Conv (g, v) y = QuantizeLinear (z, ys, yz) }}"""
    arrays = {**params(x=(0.5, 9), y=(8.0, 100), u=(2.0, 90)), **CONV}
    pair = fuse(text, arrays)
    assert pair.op_types == ["QLinearConv", "QLinearConv"]
    x = codes((1, 4, 5, 5))
    first = requantize(sums(x, 9), np.float32(0.5 * 0.125 / 8), arrays["yz"])
    second = requantize(sums(first, 90), np.float32(2 * 0.125 / 8), arrays["yz"])
    simulated, found = pair.outputs({"x": x})
    np.testing.assert_array_equal(found[0], second)
    np.testing.assert_array_equal(simulated[0], second)


def test_every_reader_of_codes_reads_what_the_kernel_puts_out():
    text = f"""g (uint8[N, 4, H, W] x)
        => (uint8[N, 4, H, W] y, uint8[N, 4, H, W] q, float[N, 4, H, W] g) {{
        {READ} t = Conv (f, v) q = QuantizeLinear (t, ys, yz)
        g = DequantizeLinear (q, ys, yz) h = DequantizeLinear (q, us, uz)
        a = Add (g, h) y = QuantizeLinear (a, us, uz) }}"""
    arrays = {**params(x=(0.5, 9), y=(8.0, 100), u=(16.0, 90)), **CONV}
    pair = fuse(text, arrays)
    assert pair.op_types == ["QLinearConv", "DequantizeLinear", "QLinearAdd"]
    simulated, found = pair.outputs({"x": codes((1, 4, 5, 5))})
    for wanted, array in zip(simulated, found, strict=True):
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize(
    "body",
    [
        "t = Conv (f, v) y = QuantizeLinear (t, ys, yz) z = Neg (t)",
        "z = Conv (f, v) y = QuantizeLinear (z, ys, yz)",
        "t = Conv (f, v) z = Relu (t) y = QuantizeLinear (z, ys, yz)",
        """t = Conv (f, v) y = QuantizeLinear (t, ys, yz) u = QuantizeLinear (t, us, uz)
           z = DequantizeLinear (u, us, uz)""",
    ],
)
def test_what_is_wanted_in_float_too_is_not_requantized(body):
    text = f"""g (uint8[N, 4, H, W] x) => (uint8[N, 4, H, W] y, float[N, 4, H, W] z) {{
        {READ} {body} }}"""
    arrays = {**params(x=(0.5, 9), y=(8.0, 100)), **CONV}
    arrays |= params(u=(16.0, 90)) if "us" in body else {}
    pair = fuse(text, arrays)
    assert not pair.fused.kernels
    assert [entry[1:] for entry in pair.fused.left if entry[1] == "Conv"] == [
        ("Conv", "its output is not read by one QuantizeLinear to uint8 alone")
    ]


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("captured", ["f", "t", "q", "g"])
def test_a_body_reads_what_it_read_before(captured, condition):
    kind = "uint8" if captured == "q" else "float"
    model = load(f"""
        g (uint8[N, 4, H, W] x, bool c) => (uint8[N, 4, H, W] y, {kind}[N, 4, H, W] o)
        <int8[4, 4, 1, 1] w, float[4] ws, int8[4] wz, float xs, uint8 xz, float ys, uint8 yz> {{
          {READ} t = Conv (f, v) q = QuantizeLinear (t, ys, yz) g = DequantizeLinear (q, ys, yz)
          u = Add (g, g) y = QuantizeLinear (u, ys, yz)
          o = If (c) <then_branch = a () => ({kind}[N, 4, H, W] p) {{ p = Identity ({captured}) }},
                      else_branch = e () => ({kind}[N, 4, H, W] r) {{ r = Max ({captured}) }}>
        }}""", {**params(x=(0.5, 9), y=(8.0, 100)), **CONV})  # fmt: skip
    pair = fuse_model(model)
    assert ("QLinearConv" in pair.fused.kernels) == (captured != "t")
    simulated, found = pair.outputs({"x": codes((1, 4, 5, 5)), "c": np.array(condition)})
    for wanted, array in zip(simulated, found, strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_zero_points_left_out_are_zeros_of_the_type_of_the_codes():
    text = """g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) {
        q = QuantizeLinear <output_dtype = 3> (x, xs) m = MaxPool <kernel_shape = [1, 1]> (q)
        f = DequantizeLinear (m, xs) v = DequantizeLinear <axis = 0> (w, ws)
        t = Conv (f, v) u = QuantizeLinear <output_dtype = 3> (t, ys)
        y = DequantizeLinear (u, ys) }"""
    arrays = {"xs": np.float32(0.5).reshape(()), "ys": np.float32(8.0).reshape(()), **CONV}
    del arrays["wz"]
    pair = fuse(text, arrays)
    assert pair.op_types == ["QuantizeLinear", "MaxPool", "QLinearConv", "DequantizeLinear"]
    simulated, found = pair.outputs({"x": normal((1, 4, 5, 5), 0, 10)})
    np.testing.assert_array_equal(found[0], simulated[0])


def test_what_is_kept_in_float_on_purpose_stays_there():
    text = """g (float[1, 4, 6, 6] x) => (float[N, 4, H, W] y)
        <float[4, 4, 1, 1] w, float[4, 4, 1, 1] v> {
        a = Conv (x, w) b = Conv (a, v) y = Conv (b, w) }"""
    quantized = quantize(text, settings=Settings(exclude=("Conv:b",)))
    pair = fuse_model(quantized.model)
    assert pair.fused.kernels == {"QLinearConv": 2}
    assert pair.fused.left == (("Conv:b", "Conv", "kept in float on purpose"),)
    feed = random_feed(quantized.source)
    np.testing.assert_array_equal(run(pair.integer, feed, "all")[0], run(pair.qdq, feed, "all")[0])


@pytest.mark.parametrize(
    ("read", "why"),
    [
        ("f = DequantizeLinear (x, s, xz)", "its scale is computed at run time"),
        ("f = DequantizeLinear (x, xs, z)", "its zero point is computed at run time"),
        (
            "f = DequantizeLinear <axis = 1> (x, four, fourz)",
            "its input has a scale for each channel",
        ),
    ],
)
def test_parameters_that_no_kernel_takes_are_named(read, why):
    arrays = {
        **params(x=(0.5, 9), y=(8.0, 100)),
        "four": np.ones(4, np.float32),
        "fourz": np.zeros(4, np.uint8),
    }
    used = {
        n: a
        for n, a in arrays.items()
        if n in ("ys", "yz") or n in read.replace(")", ",").replace(",", " ").split()
    }
    text = f"""g (uint8[N, 4, H, W] x, float s, uint8 z) => (uint8[N, 4, H, W] y) {{
        {read} t = Sigmoid (f) y = QuantizeLinear (t, ys, yz) }}"""
    assert fuse(text, used).fused.left[0][1:] == ("Sigmoid", why)


def test_a_requantization_with_equal_scales_goes():
    text = """g (uint8[N, 4] x) => (uint8[N, 4] y) {
        a = MatMul (f, v) f = DequantizeLinear (x, xs, xz) q = QuantizeLinear (f, xs, xz)
        g = DequantizeLinear (q, xs, xz) t = Add (g, f) y = QuantizeLinear (t, xs, xz) }"""
    text = text.replace("a = MatMul (f, v) ", "")
    pair = fuse(text, params(x=(0.5, 9)))
    assert pair.op_types == ["QLinearAdd"]
    [add] = pair.integer.graph
    assert add.inputs[0] is add.inputs[3] is pair.integer.graph.inputs[0]


def test_a_float_model_is_left_alone():
    model = load(
        "g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> { t = MatMul (x, w) y = Relu (t) }"
    )
    pair = fuse_model(model)
    assert (pair.fused.kernels, pair.fused.left, pair.fused.conversions) == ({}, (), 0)


def test_every_file_of_rules_registers_one():
    files = {m.name for m in pkgutil.iter_modules(ptq.graph.emit_integer.rules.__path__)}
    registered = {rule.__module__.rsplit(".", 1)[1] for found in rules().values() for rule in found}
    assert registered == files


def test_names_that_are_taken_are_not_taken_again():
    body = f"""{READ} t = Conv (f, v) r = Relu (t) q = QuantizeLinear (r, ys, yz)
        "q/unclipped" = DequantizeLinear (q, ys, yz) z = Add ("q/unclipped", "zero_point/int8")
        y = QuantizeLinear (z, ys, yz)"""
    text = f"g (uint8[N, 4, H, W] x) => (uint8[N, 4, H, W] y) {{ {body} }}"
    taken = {'"zero_point/int8"': np.full(4, 2.0, np.float32), **CONV}
    pair = fuse(text, {**params(x=(0.5, 9), y=(8.0, 100)), **taken})
    assert pair.fused.kernels == {"QLinearConv": 1}
    simulated, found = pair.outputs({"x": codes((1, 4, 5, 4))})
    np.testing.assert_array_equal(found[0], simulated[0])


def test_standard_operators_alone_are_run_by_the_reference_evaluator_too():
    text = f"""g (uint8[1, 4, H, W] x) => (uint8[1, 4, H, W] y) {{
        {READ} t = Conv (f, v) r = Relu (t) q = QuantizeLinear (r, ys, yz)
        d = DequantizeLinear (q, ys, yz) m = Transpose <perm = [0, 1, 3, 2]> (d)
        y = QuantizeLinear (m, ys, yz) }}"""
    arrays = {**params(x=(0.5, 9), y=(8.0, 100)), **CONV}
    arrays |= {"ws": np.float32(0.125).reshape(()), "wz": np.int8(0).reshape(())}
    pair = fuse(text, arrays)
    assert pair.op_types == ["QLinearConv", "Clip", "Transpose"]
    assert set(pair.integer.opset_imports) == {""}
    feed = {"x": codes((1, 4, 5, 6))}
    found = ReferenceEvaluator(ir.to_proto(pair.integer)).run(None, feed)
    np.testing.assert_array_equal(found[0], pair.outputs(feed)[1][0])
