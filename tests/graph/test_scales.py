"""Scales as inputs: the model computes for any scale what it would with that scale inside."""

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from support.models import random_feed
from support.nets import emit, quantize, run

from ptq.graph.scales import with_scales_as_inputs

NETS = {
    "plain": "t = Conv (x, w) y = Conv (t, v)",
    "relu": "t = Conv (x, w) r = Relu (t) y = Conv (r, v)",
    "clip": "t = Conv (x, w) r = Clip (t, minus, half) y = Conv (r, v)",
    "one-sided clip": "t = Conv (x, w) r = Clip (t, , half) y = Conv (r, v)",
    "add and scalar": """t = Conv (x, w) r = Sigmoid (t) s = Add (r, half) a = Mul (s, t)
                         y = Conv (a, v)""",
    "split": """t = Conv (x, w) p, q = Split <axis = 1> (t, parts)
                c = Concat <axis = 1> (q, p) y = Conv (c, v)""",
}


def net(name):
    return f"""
        g (float[1, 4, 6, 6] x) => (float[N, 4, H, W] y)
        <float[4, 4, 1, 1] w, float[4, 4, 1, 1] v, float minus = {{-1}}, float half = {{0.5}},
         int64[2] parts = {{2, 2}}> {{ {NETS[name]} }}"""


def scaled_session(quantized):
    model, emitted = emit(quantized, absorb=False)
    scaled = with_scales_as_inputs(model, emitted.scales, None)
    return scaled, ort.InferenceSession(scaled.model, providers=["CPUExecutionProvider"])


def given(scaled, decisions, factors):
    return {
        scaled.inputs[name]: np.asarray(d.scale * factors.get(d.observed, 1), np.float32)
        for name, d in decisions.items()
        if name in scaled.inputs
    }


@pytest.mark.parametrize("name", NETS)
def test_at_the_scales_of_the_plan_it_is_the_quantized_model(name):
    quantized = quantize(net(name))
    scaled, session = scaled_session(quantized)
    feed = random_feed(quantized.source)
    found = session.run(scaled.outputs, {**feed, **given(scaled, quantized.plan.tensors, {})})
    np.testing.assert_array_equal(found[0], run(quantized.model, feed)[0])


@pytest.mark.parametrize("factor", [0.25, 0.5, 2, 8])
@pytest.mark.parametrize("name", NETS)
def test_at_other_scales_it_is_the_model_quantized_with_those(name, factor):
    quantized = quantize(net(name))
    scaled, session = scaled_session(quantized)
    feed = random_feed(quantized.source)
    roots = list(dict.fromkeys(d.observed for d in quantized.plan.tensors.values()))
    factors = {root: factor if i % 2 else 1 / factor for i, root in enumerate(roots)}
    decisions = {
        name: msgspec.structs.replace(d, scale=d.scale * factors[d.observed])
        if name in scaled.inputs
        else d
        for name, d in quantized.plan.tensors.items()
    }
    other = quantize(net(name), decisions=decisions)
    found = session.run(scaled.outputs, {**feed, **given(scaled, quantized.plan.tensors, factors)})
    expected = run(other.model, feed)[0]
    np.testing.assert_array_equal(found[0], expected)


def test_inputs_and_outputs_of_the_model_come_first():
    quantized = quantize(net("relu"))
    scaled, session = scaled_session(quantized)
    names = [i.name for i in session.get_inputs()]
    assert names[0] == "x"
    assert sorted(names[1:]) == sorted(scaled.inputs.values())
    assert scaled.outputs == ("y",)
    assert all(i.shape == [] and i.type == "tensor(float)" for i in session.get_inputs()[1:])


def test_the_scale_of_a_constant_is_none_to_turn():
    # its codes were made with it: turned, it would make another constant of them
    scaled, _ = scaled_session(quantize(net("add and scalar")))
    assert "half" not in scaled.inputs
    assert scaled.inputs.keys() == {"x", "t", "r", "s", "a", "y"}
