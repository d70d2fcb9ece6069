"""The mean error of rounded weights, against two float networks, one with the rounded weight."""

import numpy as np
import onnx_ir as ir
import pytest
from support.models import random_feed
from support.nets import ORDINARY, quantize, values

from ptq.graph.biases import add_to_biases, bias_slots
from ptq.graph.weight_errors import tap_weight_errors
from ptq.runtime.weight_errors import mean_errors

LAYERS = {
    "conv": "y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)",
    "grouped": "y = Conv <group = 2, dilations = [2, 1]> (x, grouped, b)",
    "depthwise": "y = Conv <group = 4> (x, depthwise)",
    "gemm": "m = Reshape (x, rows) y = Gemm (m, matrix, row)",
    "gemm transposed": "m = Reshape (x, rows) y = Gemm <transB = 1> (m, transposed)",
    "matmul": "p = MatMul (x, square) y = Add (p, row)",
}

DECLARED = """float[4, 4, 3, 3] w, float[4] b, float[4, 2, 3, 3] grouped,
    float[4, 1, 3, 3] depthwise, float[6, 8] matrix, float[8] row, float[8, 6] transposed,
    float[6, 8] square, int64[2] rows = {-1, 6}"""


def net(name):
    shape = {"gemm": "M, 8", "gemm transposed": "M, 8"}.get(name, "N, C, H, W")
    return f"g (float[N, 4, 6, 6] x) => (float[{shape}] y) <{DECLARED}> {{ {LAYERS[name]} }}"


def found(quantized, feeds, folder):
    slots = bias_slots(quantized.sites)
    tapped = tap_weight_errors(quantized.source, quantized.model, slots)
    return slots, mean_errors(tapped, feeds, folder)


def channels(array, axis):
    """Return an output with a row for each channel."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


@pytest.mark.parametrize("name", LAYERS)
def test_the_shift_is_what_the_rounding_of_the_weight_takes_on_the_average(name, tmp_path):
    made = quantize(net(name), settings=ORDINARY)
    decision = made.plan.tensors["m" if "gemm" in name else "x"]
    rng = np.random.default_rng(5)
    # on the grid, so that the weight is all that is rounded
    codes = [rng.integers(40, 250, (n, 4, 6, 6)) - decision.zero_point for n in (1, 3)]
    feeds = [{"x": (c * np.float32(decision.scale)).astype(np.float32)} for c in codes]
    [slot], shifts = found(made, feeds, tmp_path)

    def mean(model):
        outputs = [channels(values(model, feed, ["y"])["y"], slot.axis) for feed in feeds]
        return np.concatenate(outputs, axis=1).mean(axis=1)

    rounded = made.source.clone()
    [weight] = [node.inputs[1] for node in rounded.graph if node.name == slot.node]
    [written] = [node.inputs[1] for node in made.model.graph if node.name == slot.node]
    stored = values(made.model, feeds[0], [written.name])[written.name]
    weight.const_value = ir.tensor(stored, name=weight.name)
    wanted = mean(made.source) - mean(rounded)
    # float32 sums of some dozen products of about 1
    np.testing.assert_allclose(shifts[slot.node], wanted, atol=1e-5)
    assert np.abs(wanted).max() > 1e-3
    add_to_biases(rounded, shifts)
    np.testing.assert_allclose(mean(rounded), mean(made.source), atol=1e-5)


def test_the_mean_does_not_depend_on_how_the_data_is_cut(tmp_path):
    made = quantize(net("conv"), settings=ORDINARY)
    whole = random_feed(made.source, N=6)["x"]
    _, one = found(made, [{"x": whole}], tmp_path)
    _, cut = found(made, [{"x": whole[:1]}, {"x": whole[1:]}], tmp_path)
    for node, mean in one.items():
        # sums of float32
        np.testing.assert_allclose(cut[node], mean, atol=1e-6)
