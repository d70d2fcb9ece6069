"""Expected errors of layers are what they lack on inputs that are everywhere at their mean."""

import numpy as np
import pytest
from support.nets import ORDINARY, quantize

from ptq.graph.biases import bias_slots
from ptq.graph.expected_errors import expected_errors
from ptq.graph.weight_errors import tap_weight_errors
from ptq.runtime.weight_errors import mean_errors

LAYERS = {
    "conv": "y = Conv <strides = [2, 2]> (x, w, b)",
    "grouped": "y = Conv <group = 2, dilations = [2, 1]> (x, grouped, b)",
    "depthwise": "y = Conv <group = 4> (x, depthwise)",
    "gemm": "y = Gemm (x, matrix, row)",
    "transposed": "y = Gemm <transB = 1> (x, turned, row)",
}

DECLARED = """float[4, 4, 3, 3] w, float[4] b, float[4, 2, 3, 3] grouped,
    float[4, 1, 3, 3] depthwise, float[4, 8] matrix, float[8] row, float[8, 4] turned"""


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_what_the_layer_lacks_where_every_value_is_the_mean(name, tmp_path):
    dense = "Gemm" in LAYERS[name]
    shapes = ("N, 4", "N, 8") if dense else ("N, 4, 6, 6", "N, C, H, W")
    text = f"g (float[{shapes[0]}] x) => (float[{shapes[1]}] y) <{DECLARED}> {{ {LAYERS[name]} }}"
    made = quantize(text, settings=ORDINARY)
    codes = np.array([30, 90, 140, 200]) - made.plan.tensors["x"].zero_point
    # on the grid, so that quantizing the input changes nothing
    mean = codes * made.plan.tensors["x"].scale
    x = np.broadcast_to(mean if dense else mean[:, None, None], (2, 4) if dense else (2, 4, 6, 6))
    slots = bias_slots(made.sites)
    [wanted] = mean_errors(
        tap_weight_errors(made.source, made.model, slots), [{"x": x.astype(np.float32)}], tmp_path
    ).values()
    [found] = expected_errors(made.source, made.model, slots, {"x": mean}).values()
    # float32 sums of 36 products, against float64
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(found).max() > 1e-4
    assert expected_errors(made.source, made.model, slots, {}) == {}
