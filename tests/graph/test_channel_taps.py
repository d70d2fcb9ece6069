"""The extremes of channels are those of numpy, over all feeds, and NaN is refused."""

from pathlib import Path

import numpy as np
import pytest
from support.models import random_feed
from support.nets import prepare, values

from ptq.errors import CalibrationError, ModelError
from ptq.graph.channel_taps import ChannelTap, tap_channels
from ptq.runtime.channels import observe_channels

NET = """
    g (float[N, 3, H, W] x, float[N, 5, 6] z) => (float[N, 4, A, B] y, float[N, 5, 7] r)
    <float[4, 3, 3, 3] w, float[6, 7] v> {
      t = Conv <pads = [1, 1, 1, 1]> (x, w)
      m = MatMul (z, v)
      y = Relu (t)
      r = Relu (m)
    }"""

TAPS = [ChannelTap("t", 4, 1, 4), ChannelTap("m", 7, -1, 0)]


def observe(model, feeds, taps=TAPS):
    return observe_channels(tap_channels(model, taps), feeds, threads=1, folder=Path())


def test_extremes_of_channels_are_those_of_all_feeds():
    model = prepare(NET)
    feeds = [random_feed(model, seed, N=2, H=5 + seed, W=4) for seed in range(3)]
    found = observe(model, feeds)
    both = [values(model, feed, ["t", "m"]) for feed in feeds]
    for tensor, axes in (("t", (0, 2, 3)), ("m", (0, 1))):
        lo = np.min([v[tensor].min(axis=axes) for v in both], axis=0)
        hi = np.max([v[tensor].max(axis=axes) for v in both], axis=0)
        # onnxruntime and the reference add products in another order
        np.testing.assert_allclose(found[tensor].lo, lo, rtol=1e-5)
        np.testing.assert_allclose(found[tensor].hi, hi, rtol=1e-5)
        np.testing.assert_array_equal(
            found[tensor].magnitudes, np.maximum(-found[tensor].lo, found[tensor].hi)
        )


def test_what_is_not_finite_is_refused():
    model = prepare(NET)
    good = random_feed(model, N=1, H=4, W=4)
    bad = {**good, "z": np.full_like(good["z"], np.inf)}
    with pytest.raises(
        CalibrationError, match="tensor 'm' takes a NaN or infinite value in batch 1"
    ):
        observe(model, [good, bad])


def test_no_feed_and_no_such_tensor_are_refused():
    model = prepare(NET)
    with pytest.raises(CalibrationError, match="no calibration sample"):
        observe(model, [])
    with pytest.raises(ModelError, match="tensor 'q' is not in the model"):
        observe(model, [], [ChannelTap("q", 4, 1, 4)])
