"""Tensors have the moments that were given, whatever the input."""

import numpy as np
import pytest
from support.nets import prepare, values

from ptq.graph.renormalize import renormalized
from ptq.numerics.marginal import Normal

NET = """g (float[N, 3, H, W] x) => (float[N, 4, H, W] t, float[N, 4, H, W] y)
    <float[4, 3, 3, 3] w, float[4] b, float[4, 4, 1, 1] v> {
      t = Conv <pads = [1, 1, 1, 1]> (x, w, b)
      r = Relu (t)
      y = Conv (r, v) }"""

KNOWN = Normal(np.array([0.5, -1.0, 20.0, 0.0]), np.array([1.0, 0.7, 2.0, 0.0]))


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e3])
def test_moments_are_as_told_on_any_input_and_reach_what_reads_them(scale):
    model = prepare(NET)
    made = renormalized(model, {"t": KNOWN, "absent": KNOWN})
    rng = np.random.default_rng(0)
    feed = {"x": (scale * rng.standard_normal((2, 3, 9, 9))).astype(np.float32)}
    found = values(made, feed, ["t", "r", "y"])
    # float32 sums of 162 values
    np.testing.assert_allclose(found["t"].mean(axis=(0, 2, 3)), KNOWN.mean, atol=1e-4)
    np.testing.assert_allclose(found["t"].std(axis=(0, 2, 3)), KNOWN.std, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found["r"], np.maximum(found["t"], 0))
    assert [v.name for v in made.graph.outputs] == ["t", "y"]


def test_the_model_itself_is_not_changed():
    model = prepare(NET)
    names = [node.name for node in model.graph]
    renormalized(model, {"t": KNOWN})
    assert [node.name for node in model.graph] == names


def test_a_channel_that_does_not_vary_takes_its_mean():
    made = renormalized(prepare(NET), {"t": KNOWN})
    feed = {"x": np.zeros((1, 3, 5, 5), np.float32)}
    found = values(made, feed, ["t"])["t"]
    # what rounding leaves of a variance is 3e-5 of the magnitude at most
    np.testing.assert_allclose(found.mean(axis=(0, 2, 3)), KNOWN.mean, atol=1e-3)
