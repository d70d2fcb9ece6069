"""Switching sites on and off is the same as quantizing them, or not."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from support.models import random_feed
from support.nets import ORDINARY, Settings, emit, normal, quantize, run

from ptq.graph.switches import with_switches

NETS = {
    "two layers": "t = Conv (x, w) y = Conv (t, v)",
    "bias": "t = Conv (x, w, b) y = Conv (t, v, b)",
    "relu": "t = Conv (x, w) r = Relu (t) y = Conv (r, v)",
    "narrow clip": "t = Conv (x, w) r = Clip (t, minus, half) y = Conv (r, v)",
    "move": "t = Conv (x, w) r = Transpose <perm = [0, 1, 3, 2]> (t) y = Conv (r, v)",
    "concatenation": """t = Conv (x, w) r = Relu (t) s = Conv (x, v) c = Concat <axis = 2> (r, s)
                        y = Conv (c, w)""",
    "sum": "t = Conv (x, w) s = Conv (x, v) a = Add (t, s) y = Conv (a, w)",
    "square": "t = Conv (x, w) s = Mul (t, t) y = Conv (s, v)",
    "constant": "t = Conv (x, w) r = Sigmoid (t) a = Add (r, half) y = Conv (a, v)",
    "factor": "t = Conv (x, w) r = Sigmoid (t) s = Mul (r, half) y = Conv (s, v)",
    "several readers": "t = Conv (x, w) r = Relu (t) s = Neg (r) u = Conv (r, v) y = Add (s, u)",
}


def net(name):
    return f"""
        g (float[1, 4, 6, 6] x) => (float[N, 4, H, W] y)
        <float[4, 4, 1, 1] w, float[4, 4, 1, 1] v, float[4] b, float minus = {{-1}},
         float half = {{0.5}}> {{ {NETS[name]} }}"""


def switched(quantized):
    model = quantized.source.clone()
    emitted, _ = emit(quantized, absorb=False)
    return with_switches(model, quantized.settings.sites(model), quantized.plan, emitted, None)


def outputs(found, feed, on):
    return run(onnx.ModelProto.FromString(found.model), {**feed, **found.feed(on)})


@pytest.mark.parametrize("name", NETS)
def test_with_all_switches_off_the_model_is_the_float_model(name):
    quantized = quantize(net(name))
    feed = random_feed(quantized.source)
    found = switched(quantized)
    onnx.checker.check_model(onnx.ModelProto.FromString(found.model))
    for off, plain in zip(outputs(found, feed, ()), run(quantized.source, feed), strict=True):
        np.testing.assert_array_equal(off, plain)


@pytest.mark.parametrize(
    "settings",
    [Settings(), ORDINARY, replace(ORDINARY, calib="lloyd", activation_bits=2)],
    ids=["powers of two", "ordinary", "looked up"],
)
@pytest.mark.parametrize("name", NETS)
def test_with_all_switches_on_it_is_the_quantized_model(name, settings):
    quantized = quantize(net(name), settings=settings)
    feed = random_feed(quantized.source, 3)
    found = switched(quantized)
    assert [site.name for site in found.sites] == quantized.site_names
    every = found.of_sites(quantized.site_names)
    for on, emitted in zip(outputs(found, feed, every), run(quantized.model, feed), strict=True):
        np.testing.assert_array_equal(on, emitted)


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("name", ["two layers", "bias", "relu", "narrow clip"])
def test_a_site_that_is_off_is_a_site_that_is_kept_in_float(name, left):
    whole = quantize(net(name), settings=ORDINARY)
    kept = whole.site_names[left]
    settings = replace(ORDINARY, keep_float=((kept, "kept"),))
    one = quantize(net(name), settings=settings, decisions=whole.plan.tensors)
    assert one.site_names == [n for n in whole.site_names if n != kept]
    feed = random_feed(whole.source, 3)
    found = switched(whole)
    on = found.of_sites(one.site_names)
    for off, emitted in zip(outputs(found, feed, on), run(one.model, feed), strict=True):
        np.testing.assert_array_equal(off, emitted)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(outputs(found, feed, on), run(whole.model, feed), strict=True)
    )


def test_a_hard_swish_has_a_gate_of_codes():
    body = "t = Conv (x, w, b) s = HardSwish (t) y = Conv (s, v)"
    text = f"""g (float[1, 4, 8, 8] x) => (float[N, C, H, W] y)
        <float[4, 4, 1, 1] w, float[4] b, float[4, 4, 1, 1] v> {{ {body} }}"""
    quantized = quantize(text, {"w": normal((4, 4, 1, 1), 1, 2.0)}, settings=ORDINARY)
    feed = random_feed(quantized.source, 3)
    found = switched(quantized)
    swish = next(site for site in found.sites if site.op_type == "HardSwish")
    assert len(swish.inner) == 1
    every = found.of_sites(quantized.site_names)
    [on], [emitted] = outputs(found, feed, every), run(quantized.model, feed)
    # the sum in the gate is computed in another order: a value may fall to the code beside
    step = quantized.plan.tensors["y"].scale
    np.testing.assert_allclose(on, emitted, atol=1.01 * step)
    assert np.mean(on == emitted) > 0.9


def test_a_table_is_looked_up_in_codes():
    text = """g (int64[1, 5] i) => (float[A, B, C] y) <float[300, 64] table, float[64, 8] w> {
        e = Gather (table, i) y = MatMul (e, w) }"""
    feed = {"i": np.array([[3, -1, 0, 299, 7]])}
    quantized = quantize(text, feeds=[feed], settings=ORDINARY)
    found = switched(quantized)
    every = found.of_sites(quantized.site_names)
    np.testing.assert_array_equal(outputs(found, feed, every)[0], run(quantized.model, feed)[0])
    np.testing.assert_array_equal(outputs(found, feed, ())[0], run(quantized.source, feed)[0])
    assert found.of_tensor("table")
    assert found.of_tensor("table") < every


def test_a_tensor_is_rounded_once_for_all_or_once_for_each_reader():
    quantized = quantize(net("sum"))
    found = switched(quantized)
    assert len(found.of_tensor("t")) == 1
    assert len(found.of_tensor("x")) == 2  # two convolutions read the input
    assert len(found.of_tensor("v")) == 1
    assert not found.of_tensor("nothing")
    every = found.of_sites(quantized.site_names)
    tensors = ("x", "w", "v", "t", "s", "a", "y")
    assert frozenset().union(*map(found.of_tensor, tensors)) == every
