"""Rounding weights in blocks: no channel gets worse on the data, whatever the layer and layout."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from support.models import load
from support.nets import prepare, run, to_bytes

from ptq.errors import CalibrationError
from ptq.graph.biases import add_to_biases
from ptq.graph.emit_weight_only import WeightFormat, emit_weight_only
from ptq.numerics.blocks import quantize_blocks
from ptq.rounders import ROUNDERS
from ptq.rounders.gptq import GptqRounder
from ptq.weight_rounding import RoundedWeights, WeightRounder

LAYERS = {
    "conv": ("float[12, 4, 5, 5] w", "y = Conv <pads = [2, 2, 2, 2], strides = [2, 1]> (x, w)"),
    "grouped": ("float[40, 2, 4, 4] w", "y = Conv <group = 2, dilations = [2, 1]> (x, w)"),
    "depthwise": ("float[64, 1, 4, 4] w", 'y = Conv <group = 4, auto_pad = "SAME_LOWER"> (x, w)'),
    "matmul": ("float[40, 30] w", "y = MatMul (x, w)"),
    "gemm": ("float[30, 40] w, float[30] b", "y = Gemm <transB = 1> (x, w, b)"),
}


class Written:
    """A model, and its weights as a form writes them."""

    def __init__(self, text, weights=None, **form):
        self.model, self.form = prepare(text, weights), WeightFormat(**form)
        self.tensors = {}
        self.emitted(self._record)

    def _record(self, name, array, layout):
        self.tensors[name] = quantize_blocks(array, layout)
        return self.tensors[name]

    def emitted(self, quantize, shifts=None):
        model = self.model.clone()
        add_to_biases(model, shifts or {})
        emit_weight_only(model, self.form, quantize_weight=quantize)
        return model

    def rounder(self, folder):
        return WeightRounder(self.model, folder, self.tensors)


def values(model, feed):
    proto = onnx.ModelProto.FromString(to_bytes(model))
    return ReferenceEvaluator(proto).run(None, feed)[0].astype(np.float64)


def inputs(shape, seed=1):
    """Return correlated values whose mean is not 0."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(1, 1, (shape[0], 1) + (1,) * (len(shape) - 2)) + rng.normal(0, 0.4, shape)
    ).astype(np.float32)


@pytest.mark.parametrize("kernels", [True, False], ids=["blocks inside", "unpacked"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("name", "bits"), [(n, 4) for n in LAYERS] + [("conv", 2), ("gemm", 8)])
def test_no_channel_gets_worse_on_the_data(name, bits, symmetric, kernels, tmp_path):
    declared, layer = LAYERS[name]
    dense = name in ("matmul", "gemm")
    shape, axis = ((50, 40), 1) if dense else ((4, 4, 8, 8), 1)
    text = f"g (float[{', '.join(map(str, shape))}] x) => (float y) <{declared}> {{ {layer} }}"
    made = Written(text, bits=bits, block=16, symmetric=symmetric, portable=True, kernels=kernels)
    feed = {"x": inputs(shape)}
    rounder = made.rounder(tmp_path)
    found = rounder.round(GptqRounder(), [feed], biases=False)
    assert set(found.weights) == set(made.tensors) == {"w"}
    wanted = values(made.model, feed)
    # the model that is written, by an engine of its own
    before, after = (
        np.square(np.moveaxis(values(m, feed) - wanted, axis, 0).reshape(wanted.shape[axis], -1))
        for m in (made.emitted(RoundedWeights({}, {}).quantize), made.emitted(found.quantize))
    )
    # all places are looked at, for they are few; sums are of float32
    assert np.all(after.sum(axis=1) <= before.sum(axis=1) * (1 + 1e-3) + 1e-9)
    assert after.sum() < 0.95 * before.sum()


@pytest.mark.parametrize("method", ["admm", "cd", "elq", "laq", "obq", "prox", "refit", "tsq"])
def test_every_method_rounds_blocks(method, tmp_path):
    declared, layer = LAYERS["matmul"]
    text = f"g (float[50, 40] x) => (float y) <{declared}> {{ {layer} }}"
    made = Written(text, bits=2, block=16, symmetric=False, portable=True)
    feed = {"x": inputs((50, 40))}
    found = made.rounder(tmp_path).round(ROUNDERS.make(method, {}), [feed], biases=False)
    wanted = values(made.model, feed)
    before, after = (
        np.square(values(m, feed) - wanted).sum(axis=0)
        for m in (made.emitted(RoundedWeights({}, {}).quantize), made.emitted(found.quantize))
    )
    # all places are looked at, for they are few; sums are of float32
    assert np.all(after <= before * (1 + 1e-3) + 1e-9)
    if method != "laq":  # it does not see how inputs depend on one another
        assert after.sum() < 0.95 * before.sum()


def test_what_is_simulated_is_what_is_written(tmp_path):
    text = """g (float[3, 4, 8, 8] x) => (float y)
        <float[40, 4, 5, 5] w, float[40] b, float[20, 40] table, int64[2] rows = {3, 17},
         int64[1] ax = {3}, float[8, 40] v>
        { t = Conv (x, w, b) p = ReduceMean <keepdims = 1> (t, ax) s = MatMul (p, v)
          e = Gather (table, rows) z = ReduceSum (e) y = Add (s, z) }"""
    text = text.replace("float[8, 40] v", "float[1, 40] v").replace(
        "float[20, 40]", "float[30, 40]"
    )
    made = Written(text, bits=4, symmetric=False, portable=True)
    feed = {"x": inputs((3, 4, 8, 8))}
    rounder = made.rounder(tmp_path)
    found = rounder.round(GptqRounder(), [feed] * 2, biases=True)
    assert set(found.shifts) == {made.model.graph[0].name}
    shipped = values(made.emitted(found.quantize, found.shifts), feed)
    np.testing.assert_allclose(
        values(rounder.simulated(found), feed), shipped, rtol=1e-4, atol=1e-4
    )


def test_with_biases_the_mean_of_each_channel_stays(tmp_path):
    text = """g (float[9, 40] x) => (float[9, 30] y) <float[40, 30] w, float[30] b>
        { t = MatMul (x, w) y = Add (t, b) }"""
    made = Written(text, bits=2, symmetric=True)
    feeds = [{"x": inputs((9, 40), seed)} for seed in range(4)]
    rounder = made.rounder(tmp_path)
    found = rounder.round(GptqRounder(), feeds, biases=True)
    lost = np.concatenate(
        [values(rounder.simulated(found), f) - values(made.model, f) for f in feeds]
    )
    # sums of float32
    assert np.abs(lost.mean(axis=0)).max() < 1e-4 * np.abs(lost).max()


def test_weights_that_others_read_are_left(tmp_path):
    text = """g (float[40, 40] x) => (float[40, 40] y, float[40, 40] z)
        <float[40, 40] alone, float[40, 40] seen, float[40, 40] twice>
        { a = MatMul (x, alone) b = MatMul (a, seen) z = Mul (x, seen)
          c = MatMul (b, twice) d = Relu (c) y = MatMul (d, twice) }"""
    made = Written(text, bits=4)
    found = made.rounder(tmp_path).round(GptqRounder(), [{"x": inputs((40, 40))}] * 2, biases=False)
    assert set(found.weights) == {"alone", "twice"}


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_a_recurrent_layer_is_rounded_by_its_input_and_by_its_state(op, tmp_path):
    gates = {"GRU": 3, "LSTM": 4}[op] * 20
    more = ", linear_before_reset = 1" if op == "GRU" else ""
    text = f"""g (float[7, 5, 24] x) => (float[7, 1, 5, 20] y)
        <float[1, {gates}, 24] w, float[1, {gates}, 20] r>
        {{ y = {op} <hidden_size = 20{more}> (x, w, r) }}"""
    rng = np.random.default_rng(0)
    weights = {
        name: (0.3 * rng.standard_normal((1, gates, n))).astype(np.float32)
        for name, n in (("w", 24), ("r", 20))
    }
    made = Written(text, weights, bits=2)
    rounder = made.rounder(tmp_path)
    assert rounder.passes() == 2  # the state is that which the rounded input makes
    feeds = [{"x": inputs((7, 5, 24), seed)} for seed in range(6)]
    found = rounder.round(GptqRounder(), feeds[:4], biases=True)
    assert set(found.weights) == {"w", "r"}
    assert not found.shifts

    def error(quantize):
        model = made.emitted(quantize)
        return sum(np.square(run(model, f)[0] - run(made.model, f)[0]).sum() for f in feeds[4:])

    assert error(found.quantize) < 0.7 * error(RoundedWeights({}, {}).quantize)


def test_each_layer_is_rounded_on_what_those_before_it_make(tmp_path):
    text = """g (float[9, 32] x) => (float[9, 32] y)
        <float[32, 32] a, float[32, 32] b, float[32, 32] c>
        { s = MatMul (x, a) t = MatMul (x, b) u = Add (s, t) y = MatMul (u, c) }"""
    made = Written(text, bits=4)
    rounder = made.rounder(tmp_path)
    assert rounder.passes() == 2  # two layers read the input
    feeds = [{"x": inputs((9, 32), seed)} for seed in range(4)]
    found = rounder.round(GptqRounder(), feeds, biases=False)
    first = {n: t for n, t in found.weights.items() if n != "c"}
    weights = {n: t.dequantize() for n, t in first.items()}
    alone = Written(
        "g (float[9, 32] u) => (float[9, 32] y) <float[32, 32] c> { y = MatMul (u, c) }",
        {"c": made.model.graph.initializers["c"].const_value.numpy()},
        bits=4,
    )
    read = [{"u": f["x"] @ weights["a"] + f["x"] @ weights["b"]} for f in feeds]
    again = alone.rounder(tmp_path).round(GptqRounder(), read, biases=False)
    np.testing.assert_array_equal(again.weights["c"].codes, found.weights["c"].codes)


def test_an_input_that_is_not_finite_is_named(tmp_path):
    text = """g (float[2, 40] x) => (float[2, 30] y) <float[40, 30] w>
        { t = Log (x) y = MatMul (t, w) }"""
    made = Written(text, bits=4)
    feed = {"x": np.zeros((2, 40), np.float32)}
    with pytest.raises(CalibrationError, match="tensor 't' takes a NaN or infinite value"):
        made.rounder(tmp_path).round(GptqRounder(), [feed], biases=False)


def test_another_layout_is_rounded_to_nearest():
    array = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
    form = WeightFormat(bits=4)
    tensor = quantize_blocks(array * 2, form.along(0))
    found = RoundedWeights({"w": tensor}, {})
    assert found.quantize("w", array, form.along(0)) is tensor
    for layout in (form.along(1), WeightFormat(bits=2).along(0), WeightFormat(block=16).along(0)):
        np.testing.assert_array_equal(
            found.quantize("w", array, layout).codes, quantize_blocks(array, layout).codes
        )


def test_a_model_without_layers_needs_no_pass(tmp_path):
    model = load("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    rounder = WeightRounder(model, tmp_path, {})
    assert rounder.passes() == 0
    assert rounder.round(GptqRounder(), [], biases=True).weights == {}
