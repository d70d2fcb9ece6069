"""How much channels count: against the closed form of networks that are linear behind a block."""

from pathlib import Path

import numpy as np
from support.nets import normal, prepare

from ptq.train.blocks import find_layers
from ptq.train.importance import channel_importance

HERE = Path()

DENSE = """
agraph (float[N, 6] x) => (float[N, 5] y) <float[6, 4] w, float[4, 5] v>
{ a = MatMul (x, w)  y = MatMul (a, v) }
"""

IMAGES = """
agraph (float[1, 3, 6, 6] x) => (float[1, 4, 6, 6] y)
<float[4, 3, 1, 1] w, float[4, 4, 1, 1] v>
{ a = Conv (x, w)  c = Relu (a)  y = Conv (c, v) }
"""


def importance(text, shape, count, weights=None):
    model = prepare(text, weights)
    layers = {n.name for n in model.graph if n.op_type in ("Conv", "MatMul")}
    feeds = [{"x": normal(shape, seed)} for seed in range(count)]
    found = channel_importance(model, find_layers(model.graph, layers), feeds, HERE)
    return model, found


def test_a_channel_counts_as_what_it_is_multiplied_by_behind():
    v = np.diag([1, 2, 3, 4]).astype(np.float32)[:, [0, 1, 2, 3, 3]]
    _, found = importance(DENSE, (400, 6), 32, {"v": v})
    exact = np.square(v).sum(1)
    # 32 · 400 random directions: 2 / sqrt(12800) of each is 2 %, in the worst of four 5
    np.testing.assert_allclose(found["a"][0], exact / exact.mean(), rtol=0.05)
    assert found["y"].shape == (1, 5)


def test_images_have_their_channels_in_front_and_what_is_not_read_counts_for_nothing():
    v = normal((4, 4, 1, 1))
    v[:, 2] = 0
    _, found = importance(IMAGES, (1, 3, 6, 6), 2, {"v": v})
    assert found["c"].shape == (1, 4, 1, 1)
    np.testing.assert_array_equal(found["c"].reshape(-1) > 0, [True, True, False, True])


def test_before_what_cannot_be_differentiated_all_count_alike():
    text = DENSE.replace("(float[N, 5] y)", "(float y)").replace("y = MatMul", "b = MatMul")
    text = text.replace("N", "5")
    assert importance(text.replace("(a, v) }", "(a, v)  y = Det (b) }"), (5, 6), 2)[1] == {}
