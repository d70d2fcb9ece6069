"""Splitting channels leaves the function as it is, and halves what is split."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from support.models import assert_close, load, random_feed, run

from ptq.errors import ModelError
from ptq.graph.rescale.apply import encode
from ptq.graph.rescale.record import Rescaling
from ptq.graph.rescale.split import apply_splits, encode_counts

MATMUL = (
    "g (float[N, 3, 5] x) => (float[N, 3, 4] y) <float[5,4] w> { t = Tanh (x) y = MatMul (t, w) }"
)
GEMM = """g (float[N, 5] x) => (float[N, 4] y) <float[4,5] w, float[4] b> {
    t = Tanh (x) y = Gemm <transB = 1> (t, w, b) }"""
RESIDUAL = """g (float[N, 3, 5] x) => (float[N, 3, 5] y) <float[5,5] w, float[5,5] v> {
    t = Tanh (x) a = MatMul (t, w) b = MatMul (t, v) c = Add (a, b) y = Add (t, c) }"""


@pytest.mark.parametrize("text", [MATMUL, GEMM, RESIDUAL])
@given(counts=st.lists(st.integers(1, 5), min_size=5, max_size=5))
def test_the_function_stays(text, counts):
    model = load(text)
    feed = random_feed(model)
    before = run(model, feed)
    apply_splits(model, {"t": encode_counts(np.array(counts))})
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert_close(before, run(model, feed), 1e-5)
    assert_close(before, ReferenceEvaluator(proto).run(None, feed), 1e-5)


def test_copies_are_equal_shares():
    model = load(MATMUL)
    feed = random_feed(model)
    apply_splits(model, {"t": encode_counts(np.array([1, 3, 1, 1, 2]))})
    [matmul] = [node for node in model.graph if node.op_type == "MatMul"]
    model.graph.outputs[:] = [matmul.inputs[0]]
    [found] = run(model, feed)
    whole = np.tanh(feed["x"]) / np.array([1, 3, 1, 1, 2])
    np.testing.assert_allclose(found, whole[..., [0, 1, 2, 3, 4, 1, 1, 4]], rtol=1e-5, atol=1e-6)


def test_what_is_split_can_be_smoothed():
    model = load(RESIDUAL)
    feed = random_feed(model)
    split = {"t": encode_counts(np.array([1, 2, 1, 1, 1]))}
    smoothed = {"t/joined": encode(np.exp2([1.0, 0, -1, 0, 2, 1]))}
    rescaled = Rescaling(split=split, smoothed=smoothed).apply(model)
    assert "t/joined/smooth" in {node.name for node in rescaled.graph}
    assert_close(run(model, feed), run(rescaled, feed), 1e-5)


@pytest.mark.parametrize(
    "splits", [{"x": "AQEBAQE="}, {"t": "AQE="}, {"t": "?"}, {"t": "AAEBAQE="}]
)
def test_splits_of_another_model_are_refused(splits):
    with pytest.raises(ModelError, match=f"'{next(iter(splits))}' do not fit this model"):
        apply_splits(load(MATMUL), splits)
