"""Which layers have room in a bias, and that adding to it moves the output by just that."""

import numpy as np
import pytest
from support.models import random_feed
from support.nets import Settings, prepare, values

from ptq.graph.biases import add_to_biases, bias_slots

NET = """g (float[N, 4, 6, 6] x) => (float[N, 4, H, W] y, float[M, 8] z, float[M, 8] v)
    <float[4, 4, 3, 3] w0, float[4] b, float[4, 2, 1, 1] w1, float[4, 8] w2, float[8] c,
     float[8, 4] w3, float[1, 8] d, float[4, 8] w4, int64[2] rows = {-1, 4}>
    { t = Conv <pads = [1, 1, 1, 1]> (x, w0, b)
      u = Conv <group = 2> (t, w1)
      y = Conv <pads = [1, 1, 1, 1]> (u, w0, b)
      m = Reshape (x, rows)
      p = MatMul (m, w2)
      z = Add (c, p)
      g = Gemm <transB = 1> (m, w3, d)
      q = MatMul (m, w4)
      v = Add (g, q) }"""


@pytest.fixture
def model():
    found = prepare(NET)
    for node in found.graph:
        node.name = f"of {node.outputs[0].name}"
    return found


def slots_of(model):
    return {slot.node: slot for slot in bias_slots(Settings().sites(model))}


def test_layers_with_room_for_a_bias_are_found(model):
    found = slots_of(model)
    # nothing constant is added behind q
    assert list(found) == ["of t", "of u", "of y", "of p", "of g"]
    assert [s.axis for s in found.values()] == [1, 1, 1, -1, -1]
    assert [s.missing for s in found.values()] == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("node", "tensor", "channels"),
    [("of t", "t", 4), ("of u", "u", 4), ("of y", "y", 4), ("of p", "z", 8), ("of g", "g", 8)],
)
def test_a_shift_moves_each_channel_of_that_layer_alone(model, node, tensor, channels):
    feed = random_feed(model, N=2, M=72)
    names = ["t", "u", "y", "z", "g"]
    before = values(model, feed, names)
    shift = np.arange(1.0, channels + 1)
    add_to_biases(model, {node: shift})
    after = values(model, feed, names)
    axis = 1 if before[tensor].ndim == 4 else -1
    moved = np.moveaxis(after[tensor] - before[tensor], axis, -1)
    # sums of 36 products of about 1, in float32
    np.testing.assert_allclose(moved, np.broadcast_to(shift, moved.shape), atol=1e-4)
    for name in names[: names.index(tensor)]:
        np.testing.assert_array_equal(after[name], before[name])


def test_a_gate_that_would_be_absorbed_by_a_bias_keeps_its_layer_without():
    model = prepare("""g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y)
        <float[4, 4, 1, 1] w0, float[4, 4, 1, 1] w1>
        { t = Conv (x, w0) h = HardSigmoid (t) y = Conv (h, w1) }""")
    assert [slot.missing for slot in bias_slots(Settings().sites(model))] == [True]
