"""What the plan leaves in float stays in float when onnxruntime optimizes the graph."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.models import random_feed
from support.nets import ORDINARY, Settings, check, normal, quantize, run, simulate

from ptq.graph.guard import requantized

#: Channels of very different size: one scale for all of them, as onnxruntime gives weights that it
#: quantizes on its own, loses the small ones.
UNEVEN = np.array([0.01, 0.1, 1.0, 3.0], np.float32)

KEPT = {
    "conv": "k = Conv <pads = [1, 1, 1, 1]> (t, w)",
    "conv, bias": "k = Conv <pads = [1, 1, 1, 1]> (t, w, b)",
    "transposed conv": "k = ConvTranspose <pads = [1, 1, 1, 1]> (t, v)",
    "transposed conv, bias": "k = ConvTranspose <pads = [1, 1, 1, 1]> (t, v, b)",
}
AFTER = {
    "nothing": "u = Identity (k)",
    "relu": "u = Relu (k)",
    "clip": "u = Clip (k, zero, one)",
    "add": "u = Add (k, channel)",
    "add, relu": "a = Add (k, channel) u = Relu (a)",
    "multiply, clip": "a = Mul (k, channel) u = Clip (a, zero, one)",
    "max pool": "u = MaxPool <kernel_shape = [2, 2]> (k)",
    "relu, max pool": "a = Relu (k) u = MaxPool <kernel_shape = [2, 2]> (a)",
    "transpose": "u = Transpose <perm = [0, 1, 3, 2]> (k)",
    "slice": "u = Slice (k, first, last, axis3)",
    "reshape": "a = Reshape (k, rows) u = Reshape (a, image)",
}
BEFORE = {
    "max pool": "t = MaxPool <kernel_shape = [2, 2]> (s)",
    "transpose": "t = Transpose <perm = [0, 1, 3, 2]> (s)",
    "slice": "t = Slice (s, first, last, axis3)",
    "reshape": "a0 = Reshape (s, rows) t = Reshape (a0, image)",
}


def image_model(kept, after, before="t = Identity (s)"):
    weights = {
        "w": normal((4, 4, 3, 3), 1) * UNEVEN[:, None, None, None],
        "v": normal((4, 4, 3, 3), 2) * UNEVEN[None, :, None, None],
    }
    text = f"""
        g (float[1, 4, 8, 8] x) => (float[N, 4, H, W] y)
        <float[4, 4, 1, 1] w0, float[4, 4, 3, 3] w, float[4, 4, 3, 3] v, float[4, 4, 1, 1] w1,
         float[4] b, float[4, 1, 1] channel, float zero = {{0}}, float one = {{1}},
         int64[1] first = {{0}}, int64[1] last = {{7}}, int64[1] axis3 = {{3}},
         int64[3] rows = {{1, 4, 64}}, int64[4] image = {{1, 4, 8, 8}}> {{
          s = Conv (x, w0)
          {before}
          {kept}
          {after}
          y = Conv (u, w1)
        }}"""
    return text, weights


def check_kept(text, weights, op_type):
    """Everything else is integer, the operator is in float, and the output is right to the bit."""
    settings = Settings(keep_float=tuple((f"{op_type}:{v}", "kept") for v in "kau"))
    quantized = quantize(text, weights, settings=settings)
    assert {s.node.op_type for s in quantized.sites.sites} >= {"Conv"}
    assert any(op_type in s for s in quantized.sites.why_float)
    feed = random_feed(quantized.source)
    as_written = run(quantized.model, feed)[0]
    as_run = run(quantized.model, feed, "all")[0]
    step = quantized.steps()[0]
    # the float operator sums in another order when it is optimized: a rounding may turn, and
    # only few do; one scale for all channels of the weight turns most of them
    assert np.abs(as_run - as_written).max() <= 1.001 * step
    assert np.mean(as_run != as_written) < 0.05
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert sum(n for op, n in coverage.floating.items() if op_type in op) == 1
    check(quantized.model)
    return quantized


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("kept", KEPT)
def test_a_float_convolution_between_integer_ones_stays_float(kept, after):
    op_type = "ConvTranspose" if "transposed" in kept else "Conv"
    quantized = check_kept(*image_model(KEPT[kept], AFTER[after]), op_type)
    assert not list(requantized(quantized.model.graph))


@pytest.mark.parametrize("output", ["k", "u"])
def test_it_stays_float_when_it_is_an_output_too(output):
    text, weights = image_model(KEPT["conv"], AFTER["relu"])
    text = text.replace("W] y)", f"W] y, float[N, 4, H, W] {output})")
    check_kept(text, weights, "Conv")


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("kept", ["conv", "transposed conv, bias"])
def test_data_movement_before_it_makes_no_difference(kept, before):
    op_type = "ConvTranspose" if "transposed" in kept else "Conv"
    check_kept(*image_model(KEPT[kept], AFTER["relu"], BEFORE[before]), op_type)


@pytest.mark.parametrize("after", ["u = Identity (k)", "u = Relu (k)", "u = Clip (k, zero)"])
@pytest.mark.parametrize(
    "kept",
    [
        "k = Gemm (t, w)",
        "k = Gemm (t, w, b)",
        "k = Gemm <transB = 1> (t, v, b)",
        "m = MatMul (t, w) k = Add (m, b)",
    ],
)
def test_a_float_gemm_between_integer_ones_stays_float(kept, after):
    weights = {"w": normal((4, 4), 1) * UNEVEN, "v": normal((4, 4), 2) * UNEVEN[:, None]}
    text = f"""
        g (float[16, 4] x) => (float[N, 4] y)
        <float[4, 4] w0, float[4, 4] w, float[4, 4] v, float[4, 4] w1, float[4] b,
         float zero = {{0}}> {{
          s = Gemm (x, w0)
          t = Relu (s)
          {kept}
          {after}
          z = Gemm (t, w1)
          q = Gemm (u, w1)
          a = Add (q, z)
          y = Sub (a, u)
        }}"""
    # the kept operator reads the float result of the first Gemm unless something integer reads it
    # too: then that result is quantized, and the hazard is there
    names = (("Gemm:k", "kept"), ("MatMul:m", "kept"), ("Add:k", "kept"))
    quantized = quantize(text, weights, settings=Settings(keep_float=names))
    feed = random_feed(quantized.source)
    as_written = run(quantized.model, feed)[0]
    np.testing.assert_allclose(run(quantized.model, feed, "all")[0], as_written, rtol=1e-5)
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert sum(n for op, n in coverage.floating.items() if op in ("Gemm", "FusedGemm")) == 1


def test_without_the_guard_onnxruntime_quantizes_by_itself(monkeypatch):
    # Were this to fail, the guard would have become needless: the hazard is measured here.
    monkeypatch.setattr("ptq.graph.emit_qdq.requantized", lambda graph: iter(()))
    text, weights = image_model(KEPT["conv"], AFTER["nothing"])
    settings = Settings(exclude=("Conv:k",))
    quantized = quantize(text, weights, settings=settings)
    assert [n.name for n in requantized(quantized.model.graph)] == ["Conv:k"]
    feed = random_feed(quantized.source)
    as_written, as_run = run(quantized.model, feed)[0], run(quantized.model, feed, "all")[0]
    assert np.mean(as_run != as_written) > 0.05
    assert not any("Conv" in op for op in quantized.coverage().floating)


@pytest.mark.parametrize(
    "after",
    [
        "y = Identity (k)",  # no QuantizeLinear after it
        "u = LeakyRelu (k) y = Conv (u, w1)",
        "u = Sigmoid (k) y = Conv (u, w1)",
        "u = Relu (k) e = Tanh (k) c = Conv (u, w1) y = Add (c, e)",  # two readers
    ],
)
def test_the_guard_stands_only_where_it_is_needed(after):
    text, weights = image_model(KEPT["conv"], after)
    text = text.replace("y = Conv (u, w1)\n        }", "}")
    settings = Settings(keep_float=(("Conv:k", "kept"), ("Sigmoid:u", "kept")))
    quantized = quantize(text, weights, settings=settings)
    assert "Sum" not in [node.op_type for node in quantized.model.graph]
    feed = random_feed(quantized.source)
    as_written, as_run = run(quantized.model, feed)[0], run(quantized.model, feed, "all")[0]
    step = max(quantized.steps()[0], 1e-4)
    assert np.abs(as_run - as_written).max() <= 1.001 * step
    assert np.mean(np.abs(as_run - as_written) > 0.5 * step) < 0.05


def test_a_float_reader_before_a_site_reads_the_exact_value():
    # x is quantized for the one and read as it is by the other: no DequantizeLinear, no hazard
    quantized = quantize(
        """
        g (float[1, 4, 8, 8] x) => (float[N, 4, H, W] y)
        <float[4, 4, 1, 1] w0, float[4, 4, 1, 1] w, float[4, 4, 1, 1] w1> {
          a = Conv (x, w0)
          k = Conv (x, w)
          u = Add (a, k)
          y = Conv (u, w1)
        }""",
        settings=Settings(exclude=("Conv:k",)),
    )
    feed = random_feed(quantized.source)
    expected = simulate(quantized, feed)[0]
    kept = next(n for n in quantized.model.graph if n.name == "Conv:k")
    assert kept.inputs[0] is quantized.model.graph.inputs[0]
    for level in ("disabled", "all"):
        found = run(quantized.model, feed, level)[0]
        # the sums of the float convolution may turn a rounding
        assert np.abs(found - expected).max() <= 1.001 * quantized.steps()[0]


@pytest.mark.parametrize("settings", [Settings(), ORDINARY])
def test_a_transposed_convolution_is_left_alone_by_default(settings):
    text, weights = image_model(KEPT["transposed conv"], AFTER["relu"])
    quantized = quantize(text, weights, settings=settings)
    assert [s.name for s in quantized.sites.sites] == ["Conv:s", "Conv:y"]
    feed = random_feed(quantized.source)
    as_written, as_run = run(quantized.model, feed)[0], run(quantized.model, feed, "all")[0]
    assert np.mean(np.abs(as_run - as_written) > 0.5 * quantized.steps()[0]) < 0.05


CLAIMED = {
    "AveragePool": "s = AveragePool <kernel_shape = [2, 2]> (t)",
    "Softmax": "s = Softmax <axis = 1> (t)",
    "Add": "s = Add (t, t)",
    "Mul": "s = Mul (t, t)",
    "Sigmoid": "s = Sigmoid (t)",
    "Where": "m = Less (t, t) s = Where (m, t, t)",
}


@pytest.mark.parametrize(
    "after",
    [
        "u = Identity (s)",
        "u = Relu (s)",
        "u = Clip (s, zero, six)",
        "u = Transpose <perm = [0, 1, 3, 2]> (s)",
        "r = Relu (s) u = MaxPool <kernel_shape = [2, 2]> (r)",
    ],
)
@pytest.mark.parametrize("kind", CLAIMED)
def test_an_operator_kept_in_float_runs_in_float_between_integers(kind, after):
    """Though onnxruntime has an integer kernel, several times slower than float for some."""
    quantized = quantize(
        f"""
        g (float[1, 16, 8, 8] x) => (float[N, 16, H, W] y)
        <float[16, 16, 3, 3] w, float[16, 16, 3, 3] v, float zero = {{0}}, float six = {{6}}>
        {{ t = Conv <pads = [1, 1, 1, 1]> (x, w) {CLAIMED[kind]} {after}
           y = Conv <pads = [1, 1, 1, 1]> (u, v) }}""",
        settings=replace(ORDINARY, op_types=("Conv",)),
    )
    coverage = quantized.coverage()
    assert coverage.floating[kind] == 1
    assert coverage.integer["QLinearConv"] == 2


MOVES = {
    "transpose": "u = Transpose <perm = [0, 1, 3, 2]> (t)",
    "max pool": "u = MaxPool <kernel_shape = [2, 2]> (t)",
    "slice": "u = Slice (t, first, last, axis3)",
    "reshape, transpose": """k = Reshape (t, rows) a = Transpose <perm = [1, 0, 2]> (k)
                             u = Reshape (a, image)""",
    "split": "k, a = Split <axis = 1, num_outputs = 2> (t) u = Concat <axis = 1> (a, k)",
}


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.7])
@pytest.mark.parametrize("name", MOVES)
def test_a_float_move_between_integer_sites_keeps_both_roundings(name, factor):
    """Two scales, one after the other: onnxruntime must not make one of them."""
    kinds = ("Transpose", "MaxPool", "Slice", "Reshape", "Squeeze", "Unsqueeze", "Split", "Concat")
    kept = tuple((f"{kind}:{v}", "kept") for kind in kinds for v in "kau")
    text, weights = image_model("", MOVES[name], "t = LeakyRelu <alpha = 0.25> (s)")
    start = quantize(text, weights, settings=Settings(keep_float=kept))
    decisions = dict(start.plan.tensors)
    other = msgspec.structs.replace(
        decisions["u"], scale=float(np.float32(decisions["u"].scale * factor))
    )
    quantized = quantize(
        text, weights, settings=start.settings, decisions={**decisions, "u": other}
    )
    feed = random_feed(quantized.source)
    expected = simulate(quantized, feed)[0]
    step = quantized.steps()[0]
    np.testing.assert_array_equal(run(quantized.model, feed)[0], expected)
    found = run(quantized.model, feed, "all")[0]
    # sums in float32 of products that are no longer exact may turn a rounding
    assert np.mean(np.abs(found - expected) > 0.5 * step) < 0.02
