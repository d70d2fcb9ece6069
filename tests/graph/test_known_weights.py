"""Weights that were quantized for one plan of activations serve another."""

import msgspec
import numpy as np
import pytest
from support.nets import ORDINARY, quantize, to_bytes

from ptq.graph.emit_qdq import emit_qdq

NET = """g (float[1, 4, 6, 6] x) => (float[N, 4, H, W] y)
    <float[4, 4, 3, 3] w, float[4] b, float[4, 4, 1, 1] v, float[4] c>
    { t = Conv (x, w, b) r = Relu (t) y = Conv (r, v, c) }"""


def emitted(quantized, plan, known):
    model = quantized.source.clone()
    sites = quantized.settings.sites(model)
    calls = []

    def quantize_weight(*given):
        calls.append(given[0])
        return quantized.settings.quantize_weight(*given)

    emit_qdq(model, sites, plan, quantize_weight, known=known)
    return to_bytes(model), calls


@pytest.mark.parametrize("factor", [1.0, 3.0, 1e-12])
def test_the_model_is_the_same_with_known_weights(factor):
    quantized = quantize(NET, settings=ORDINARY)
    known = {}
    _, calls = emitted(quantized, quantized.plan, known)
    assert len(calls) == len(known) == 2
    tensors = {
        name: msgspec.structs.replace(d, scale=float(np.float32(d.scale * factor)))
        for name, d in quantized.plan.tensors.items()
    }
    plan = msgspec.structs.replace(quantized.plan, tensors=tensors)
    model, calls = emitted(quantized, plan, known)
    assert model == emitted(quantized, plan, None)[0]
    # with so small a step of the input, biases want larger scales of the weights
    assert len(calls) == (2 if factor == 1e-12 else 0)
    # and those are not for a plan that can do without
    assert emitted(quantized, quantized.plan, known)[0] == to_bytes(quantized.model)
