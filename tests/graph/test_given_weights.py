"""Weights that come in codes, with scales of their own: they are written just as they are."""

from dataclasses import replace

import numpy as np
import pytest
from support.models import random_feed
from support.nets import ORDINARY, Settings, quantize, run, simulate

from ptq.errors import CalibrationError
from ptq.graph.emit_qdq import emit_qdq
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.qtype import QType

GRAPH = """
    g (float[1, 4, 6, 6] x) => (float[N, 4, H, W] y) <float[4, 4, 1, 1] w, float[4] b> {
      t = Conv (x, w, b)
      y = Relu (t)
    }"""


def trained(scale=0.01):
    """Codes of 3 bits, which no quantizer would make of that weight."""
    codes = np.random.default_rng(3).integers(-4, 4, (4, 4, 1, 1)).astype(np.int8)
    scales = np.float32(scale) * np.arange(1, 5, dtype=np.float32)
    return QTensor(codes, QParams(scales, np.zeros(4, np.int8), QType.parse("int3"), 0))


class Trained(Settings):
    """So that the oracle has them."""

    def quantize_weight(self, *_):
        return trained()


def emitted(quantized, given):
    model = quantized.source.clone()
    sites = quantized.settings.sites(model)
    quantizer = quantized.settings.quantize_weight
    return model, emit_qdq(model, sites, quantized.plan, quantizer, given=given)


def test_codes_and_scales_are_those_that_are_given():
    quantized, tensor = quantize(GRAPH, settings=ORDINARY), trained()
    model, done = emitted(quantized, {"w": tensor})
    written = {n: v.const_value.numpy() for n, v in model.graph.initializers.items()}
    np.testing.assert_array_equal(written["w/quantized"], tensor.codes)
    np.testing.assert_array_equal(written["w/scale"], tensor.qparams.scale)
    assert done.tensors["w"] is tensor
    assert done.widths == {3: 16}
    # the bias is in steps of what is multiplied
    step = np.float32(quantized.plan.tensors["x"].scale) * tensor.qparams.scale
    np.testing.assert_array_equal(written["b/Conv:t/scale"], step)


def test_it_computes_with_them():
    quantized = quantize(GRAPH, settings=Trained(calib="minmax", symmetric=False))
    model, _ = emitted(quantize(GRAPH, settings=ORDINARY), {"w": trained()})
    feed = random_feed(quantized.source)
    [expected] = simulate(quantized, feed)
    for level in ("disabled", "all"):
        [found] = run(model, feed, level)
        assert np.abs(found - expected).max() <= 1.001 * quantized.steps()[0]
        assert np.mean(found != expected) < 0.02


def test_what_is_given_is_not_rounded_again():
    quantized, tensor = quantize(GRAPH, settings=ORDINARY), trained()
    other = replace(tensor, codes=np.zeros_like(tensor.codes))
    model = quantized.source.clone()
    done = emit_qdq(
        model, quantized.settings.sites(model), quantized.plan,
        quantized.settings.quantize_weight, rounded={"w": other}, given={"w": tensor},
    )  # fmt: skip
    assert done.tensors["w"] is tensor


def test_a_bias_that_does_not_fit_is_refused_with_the_node():
    with pytest.raises(CalibrationError, match="bias of 'Conv:t' does not fit int32"):
        emitted(quantize(GRAPH, settings=ORDINARY), {"w": trained(scale=1e-12)})


def test_a_weight_of_another_shape_or_axis_is_refused():
    quantized, tensor = quantize(GRAPH, settings=ORDINARY), trained()
    with pytest.raises(CalibrationError, match=r"weight 'w' of 'Conv:t' .* takes \(4, 4, 1, 1\)"):
        emitted(quantized, {"w": replace(tensor, codes=tensor.codes[:2])})
    with pytest.raises(CalibrationError, match="axis 1; it takes"):
        emitted(quantized, {"w": replace(tensor, qparams=replace(tensor.qparams, axis=1))})
