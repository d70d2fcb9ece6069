"""Worked examples of the methods, computed by an independent program; see vectors.json."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptq.numerics.affine import qparams_from_range, qparams_power_of_two, quantize
from ptq.numerics.qtype import INT8, QType

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
W = np.array(VECTORS["inputs"]["w"], np.float32)


def mse(codes, params):
    exact = params.scale.astype(np.float64) * (codes - params.zero_point.astype(np.float64))
    return np.mean((np.array(VECTORS["inputs"]["w"]) - exact) ** 2)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_affine_minmax(bits):
    wanted = VECTORS[f"affine_u{bits}"]
    params = qparams_from_range(W.min(), W.max(), QType(bits, signed=False), symmetric=False)
    codes = quantize(W, params)
    # A float32 has 24 bits.
    assert params.scale == pytest.approx(wanted["scale"], rel=2**-23)
    assert codes.tolist() == wanted["q"]
    if "zp" in wanted:
        assert params.zero_point == wanted["zp"]
    # Inputs and scale rounded to float32: 1e-7 of errors of about a step.
    assert mse(codes, params) == pytest.approx(wanted["mse"], rel=1e-4)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_symmetric_narrow_minmax(bits):
    wanted = VECTORS[f"sym_narrow_s{bits}"]
    qtype = QType(bits, signed=True, narrow=True)
    params = qparams_from_range(W.min(), W.max(), qtype, symmetric=True)
    codes = quantize(W, params)
    assert params.scale == pytest.approx(wanted["scale"], rel=2**-23)
    assert codes.tolist() == wanted["q"]
    assert mse(codes, params) == pytest.approx(wanted["mse"], rel=1e-4)


@pytest.mark.parametrize("n", [5, 6, 7])
def test_qcode(n):
    wanted = VECTORS[f"qcode_n{n}"]
    params = qparams_power_of_two(n, INT8)
    codes = quantize(W, params)
    assert codes.tolist() == wanted["q"]
    assert mse(codes, params) == pytest.approx(wanted["mse"], rel=1e-4)
