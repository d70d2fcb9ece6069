"""The quantizers without a search: minmax and percentile."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptq.numerics.qtype import INT4, INT8, UINT4, UINT8
from ptq.weights import weight_quantizer

VECTORS = json.loads((Path(__file__).parent.parent / "numerics" / "vectors.json").read_text())
W = np.array(VECTORS["inputs"]["w"], np.float32)


@pytest.mark.parametrize(
    ("case", "qtype", "symmetric"),
    [
        ("affine_u8", UINT8, False),
        ("affine_u4", UINT4, False),
        ("sym_narrow_s8", INT8, True),
        ("sym_narrow_s4", INT4, True),
    ],
)
def test_minmax_of_the_worked_examples(case, qtype, symmetric):
    tensor = weight_quantizer("minmax").quantize(W, qtype, axis=None, symmetric=symmetric)
    assert tensor.codes.tolist() == VECTORS[case]["q"]
    assert float(tensor.qparams.scale) == pytest.approx(VECTORS[case]["scale"], rel=2**-23)


def test_minmax_saturates_nothing():
    w = np.random.default_rng(0).standard_normal((16, 9)).astype(np.float32)
    for symmetric in (True, False):
        tensor = weight_quantizer("minmax").quantize(w, INT8, axis=0, symmetric=symmetric)
        error = np.abs(tensor.dequantize() - w)
        # Half a step, and for the asymmetric grid the half step that the zero point moved by.
        most = tensor.qparams.scale[:, None] * (0.501 if symmetric else 1.001)
        assert np.all(error <= most)


def test_a_channel_needs_its_own_scale():
    w = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    w *= np.array([[1], [0.1], [0.01], [0.001]], np.float32)
    errors = [
        np.sum(
            (
                weight_quantizer("minmax")
                .quantize(w, INT8, axis=axis, symmetric=True)
                .dequantize()[3]
                - w[3]
            )
            ** 2
        )
        for axis in (0, None)
    ]
    assert errors[0] < errors[1] / 100


@pytest.mark.parametrize("symmetric", [True, False])
def test_percentile_of_all_is_minmax(symmetric):
    w = np.random.default_rng(0).standard_normal((8, 40)).astype(np.float32)
    minmax = weight_quantizer("minmax")
    percentile = weight_quantizer("percentile", coverage=100.0)
    one, other = (q.quantize(w, INT8, axis=0, symmetric=symmetric) for q in (minmax, percentile))
    assert np.array_equal(one.codes, other.codes)
    assert np.array_equal(one.qparams.scale, other.qparams.scale)


def test_percentile_is_numpy_s():
    w = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
    quantizer = weight_quantizer("percentile", coverage=99.0)
    symmetric = quantizer.quantize(w, INT8, axis=0, symmetric=True)
    bound = np.percentile(np.abs(w).astype(np.float64), 99, axis=1)
    assert symmetric.qparams.scale == pytest.approx(bound / 127, rel=1e-6)
    both = quantizer.quantize(w, INT8, axis=0, symmetric=False)
    lo, hi = np.percentile(w.astype(np.float64), [0.5, 99.5], axis=1)
    assert both.qparams.scale == pytest.approx((hi - lo) / 255, rel=1e-6)
