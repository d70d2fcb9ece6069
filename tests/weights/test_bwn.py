"""One bit a weight: the scaled sign of least squared error."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.numerics.qtype import QType
from ptq.weights import weight_quantizer


def dequantized(w):
    made = weight_quantizer("bwn").quantize(
        w.astype(np.float32), QType(1, signed=True), axis=0, symmetric=True
    )
    return made.codes * made.qparams.scale[:, None]


def test_the_worked_example_comes_out():
    w = np.array([[-1.5, -0.7, -0.4, -0.05, 0.1, 0.3, 0.9, 1.2]])
    np.testing.assert_allclose(dequantized(w), 0.64375 * np.sign(w), rtol=1e-6)


@given(seed=st.integers(0, 999))
def test_no_scale_and_no_signs_have_a_smaller_error(seed):
    w = np.random.default_rng(seed).normal(size=(1, 5))
    own = np.square(w - dequantized(w)).sum()
    for code in range(32):
        signs = np.where((code >> np.arange(5)) & 1, 1.0, -1.0)
        scale = max(w[0] @ signs / 5, 0.0)
        assert own <= np.square(w - scale * signs).sum() * (1 + 1e-6)


def test_normal_weights_lose_what_the_closed_form_says():
    w = np.random.default_rng(0).normal(size=(1, 400_000))
    lost = np.square(w - dequantized(w)).sum() / np.square(w).sum()
    # the standard error of the share over so many weights is 0.0007
    assert lost == pytest.approx(1 - 2 / math.pi, abs=0.003)
