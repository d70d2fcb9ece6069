"""Before LayerNormalization, Add is written as Sum: the same sum, which is not merged."""

import numpy as np
import onnx
import pytest
from support.models import load, random_feed
from support.nets import ORDINARY, normal, quantize, run, to_bytes

from ptq.graph.sum_before_norm import sum_before_norm
from ptq.runtime.session import open_session

OPERATOR = "y = LayerNormalization (s, g, b)"
WRITTEN_OUT = """m = ReduceMean (s, last) d = Sub (s, m) p = Pow (d, two) v = ReduceMean (p, last)
    e = Add (v, epsilon) r = Sqrt (e) q = Div (d, r) n = Mul (q, g) y = Add (n, b)"""


def block(norm, add="s = Add (x, h)"):
    text = f"""g (float[1, 8, 64] x) => (float[1, 8, 64] y)
        <float[64, 64] w, float[64] g, float[64] b, float two = {{2}}, float epsilon = {{0.00001}},
         int64[1] last = {{-1}}> {{ h = MatMul (x, w) {add} {norm} }}"""
    model = load(text)
    # as the prepare passes leave them
    for node in model.graph:
        for value in node.outputs:
            value.dtype = model.graph.inputs[0].dtype
    return model


@pytest.mark.parametrize("norm", [OPERATOR, WRITTEN_OUT])
def test_the_sum_is_the_same_and_stays_apart(norm, tmp_path):
    model = block(norm)
    feed = random_feed(model)
    before = run(model, feed)
    assert sum_before_norm(model.graph) == 1
    np.testing.assert_array_equal(run(model, feed)[0], before[0])
    assert sum_before_norm(model.graph) == 0
    optimized = tmp_path / "optimized.onnx"
    open_session(to_bytes(model), optimized=optimized)
    types = [node.op_type for node in onnx.load(optimized).graph.node]
    assert "LayerNormalization" in types
    assert "SkipLayerNormalization" not in types


@pytest.mark.parametrize("norm", [OPERATOR, WRITTEN_OUT])
def test_without_it_onnxruntime_merges_them(norm, tmp_path):
    # Were this to fail, the rewrite would have become needless.
    optimized = tmp_path / "optimized.onnx"
    open_session(to_bytes(block(norm)), optimized=optimized)
    assert "SkipLayerNormalization" in [n.op_type for n in onnx.load(optimized).graph.node]


@pytest.mark.parametrize(
    ("norm", "add"),
    [
        ("y = Neg (s)", "s = Add (x, h)"),
        ("m = ReduceMean (s, last) y = Add (s, m)", "s = Add (x, h)"),
        (OPERATOR, "s = Sub (x, h)"),
    ],
)
def test_other_sums_stay(norm, add):
    assert sum_before_norm(block(norm, add).graph) == 0


def test_the_emitted_model_has_it():
    quantized = quantize(block(OPERATOR), {"w": normal((64, 64), 1)}, settings=ORDINARY)
    assert [n.op_type for n in quantized.model.graph].count("Sum") == 1
    assert quantized.coverage().unfused == ()
