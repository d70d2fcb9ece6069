"""The range of the least angle, against the values themselves."""

import numpy as np
import pytest

from ptq.calib import solver
from ptq.calib.cosine import cosines
from ptq.numerics.affine import fake_quantize, qparams_from_range
from ptq.numerics.qtype import UINT4, UINT8
from ptq.stats.base import TensorStats

RNG = np.random.default_rng(0)
TENSORS = {
    "normal": RNG.normal(size=20_000).astype(np.float32),
    "rectified": np.maximum(RNG.laplace(size=20_000), 0).astype(np.float32),
    "swish": (lambda x: x / (1 + np.exp(-x)))(RNG.normal(0, 2, 20_000)).astype(np.float32),
}


def cosine(x, factor, qtype):
    params = qparams_from_range(
        np.float64(factor * min(x.min(), 0)), np.float64(factor * x.max()), qtype, symmetric=False
    )
    a, b = x.astype(np.float64), fake_quantize(x, params).astype(np.float64)
    return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("step", [0.02, 0.3])
def test_the_cosine_is_that_of_the_values(name, step):
    x = TENSORS[name]
    quantized = step * np.clip(np.rint(x / step), -6, 9)
    wanted = x @ quantized / np.sqrt((x @ x) * (quantized @ quantized))
    [found] = cosines(TensorStats.of(x), np.array([step]), np.array([-6]), np.array([9]))
    # of the angle, bins of at most an eighth of a step leave little open
    assert 1 - found == pytest.approx(1 - wanted, rel=0.02)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("qtype", [UINT4, UINT8])
def test_no_common_factor_has_a_larger_cosine(name, qtype):
    x = TENSORS[name]
    found = solver("cosine").solve(TensorStats.of(x), qtype, symmetric=False)
    best = max(cosine(x, f, qtype) for f in np.linspace(0.5, 1, 100))
    assert 1 - cosine(x, found.hi / x.max(), qtype) <= 1.02 * (1 - best)


def test_values_that_are_codes_keep_the_whole_range():
    x = np.repeat(np.arange(256, dtype=np.float32), 3)
    found = solver("cosine").solve(TensorStats.of(x), UINT8, symmetric=False)
    assert (found.lo, found.hi) == (0, 255)
