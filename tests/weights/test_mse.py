import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.numerics.affine import fake_quantize, qparams_from_range
from ptq.numerics.qtype import INT2, INT4, INT8, UINT4, QType
from ptq.weights import weight_quantizer

WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(-10, 10, width=32),
)


def errors(w, tensor):
    return np.sum((tensor.dequantize().astype(np.float64) - w) ** 2, axis=1)


def quantize(name, w, qtype, symmetric):
    return weight_quantizer(name).quantize(w, qtype, axis=0, symmetric=symmetric)


@given(WEIGHTS, st.sampled_from([INT2, INT4, INT8, UINT4]), st.booleans())
def test_no_channel_is_worse_than_with_minmax(w, qtype, symmetric):
    ours, minmax = (errors(w, quantize(name, w, qtype, symmetric)) for name in ("mse", "minmax"))
    # Narrower ranges must gain 1e-4; errors of channels with all weights on the grid are rounding.
    assert np.all(ours <= minmax + 1e-10)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform"])
def test_symmetric_is_within_a_percent_of_a_thousand_ranges(kind, bits):
    rng = np.random.default_rng(0)
    w = {
        "normal": rng.standard_normal((4, 500)),
        "laplace": rng.laplace(size=(4, 500)),
        "uniform": rng.uniform(-1, 1, (4, 500)),
    }[kind].astype(np.float32)
    qtype = QType(bits, signed=True, narrow=True)
    ours = errors(w, quantize("mse", w, qtype, symmetric=True))
    bounds = np.abs(w).max(axis=1)
    least = np.full(4, np.inf)
    for share in np.linspace(0.001, 1, 1000):
        params = qparams_from_range(-share * bounds, share * bounds, qtype, symmetric=True, axis=0)
        squares = (fake_quantize(w, params).astype(np.float64) - w) ** 2
        least = np.minimum(least, squares.sum(axis=1))
    # With few weights the error has many local minima: 2 and 3 bits are looked at more coarsely.
    assert np.all(ours <= 1.01 * least)


@pytest.mark.parametrize(
    ("bits", "step"), [(2, 1.2240), (3, 0.6508), (4, 0.3534), (5, 0.1933), (6, 0.1055), (8, 0.0309)]
)
def test_the_step_for_normal_weights(bits, step):
    # The least error of a grid of 2^b - 1 codes with one at zero, computed by quadrature.
    w = np.random.default_rng(0).standard_normal((1, 1_000_000)).astype(np.float32)
    found = quantize("mse", w, QType(bits, signed=True), symmetric=True).qparams.scale[0]
    # The least is flat: a step 3 % off has an error about 0.3 % larger.
    assert found == pytest.approx(step, rel=0.03)


def laplace_error(step, codes):
    """Mean squared error of Laplace values of b = 1 on the grid -codes..codes, by quadrature."""
    x = np.linspace(0, 40, 400_001)
    density = np.exp(-x)
    return np.trapezoid((x - step * np.clip(np.rint(x / step), 0, codes)) ** 2 * density, x)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_the_error_for_laplace_weights_is_the_least(bits):
    w = np.random.default_rng(0).laplace(size=(1, 400_000)).astype(np.float32)
    found = quantize("mse", w, QType(bits, signed=True), symmetric=True).qparams.scale[0]
    codes = 2 ** (bits - 1) - 1
    steps = np.geomspace(found / 2, found * 2, 200)
    least = min(laplace_error(step, codes) for step in steps)
    # The sample's least is not the distribution's: 400 000 values tell errors apart to about 1 %.
    assert laplace_error(float(found), codes) <= 1.02 * least


def test_an_asymmetric_search_moves_each_end():
    rng = np.random.default_rng(0)
    w = np.concatenate([rng.uniform(-1, 1, 2000), [-4, 1.2]]).astype(np.float32)[None]
    lo, hi = quantize("mse", w, INT4, symmetric=False).qparams.range()
    # The outlier of one side is cut, the other end stays.
    assert lo[0] > -2
    assert hi[0] > 0.8


def test_more_steps_are_no_worse():
    w = np.random.default_rng(0).standard_normal((8, 200)).astype(np.float32)
    few, many = (
        weight_quantizer("mse", steps=steps).quantize(w, INT4, axis=0, symmetric=True)
        for steps in (5, 500)
    )
    assert errors(w, many).sum() <= errors(w, few).sum() * 1.001


def test_weights_far_from_one_are_searched_as_well():
    w = np.random.default_rng(0).standard_normal((1, 100)).astype(np.float32)
    codes = quantize("mse", w, INT4, symmetric=True).codes
    for factor in (2.0**-90, 2.0**100):
        scaled = w * np.float32(factor)
        assert np.array_equal(quantize("mse", scaled, INT4, symmetric=True).codes, codes)
