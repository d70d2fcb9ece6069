import json
from pathlib import Path

import numpy as np
import pytest

from ptq.numerics.affine import fake_quantize, qparams_power_of_two
from ptq.numerics.qtype import INT4, INT8, UINT8
from ptq.weights import weight_quantizer

VECTORS = json.loads((Path(__file__).parent.parent / "numerics" / "vectors.json").read_text())


def test_the_worked_example():
    w = np.array(VECTORS["inputs"]["w"], np.float32)
    tensor = weight_quantizer("qcode").quantize(w, INT8, axis=None, symmetric=True)
    assert tensor.qparams.scale == 2.0**-6
    assert tensor.codes.tolist() == VECTORS["qcode_n6"]["q"]


@pytest.mark.parametrize("qtype", [INT4, INT8, UINT8], ids=str)
def test_scales_are_the_best_powers_of_two(qtype):
    w = np.random.default_rng(0).laplace(size=(20, 300)).astype(np.float32)
    w *= np.geomspace(1e-3, 1e3, 20, dtype=np.float32)[:, None]
    tensor = weight_quantizer("qcode").quantize(w, qtype, axis=0, symmetric=True)
    exponents = -np.log2(tensor.qparams.scale.astype(np.float64))
    assert np.array_equal(exponents, np.rint(exponents))
    assert np.all(tensor.qparams.zero_point == qtype.middle)
    ours = np.sum((tensor.dequantize().astype(np.float64) - w) ** 2, axis=1)
    for shift in range(-4, 5):
        params = qparams_power_of_two(exponents.astype(int) + shift, qtype, axis=0)
        other = np.sum((fake_quantize(w, params).astype(np.float64) - w) ** 2, axis=1)
        # Sums of 300 squares in float32.
        assert np.all(ours <= other * (1 + 1e-5))
