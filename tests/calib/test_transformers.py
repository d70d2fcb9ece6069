"""Ranges of what transformers put out: bounded by one, or with a short negative side."""

import numpy as np
import pytest
from scipy.special import ndtr, softmax

from ptq.calib import solver
from ptq.numerics.affine import qparams_from_range
from ptq.numerics.qtype import UINT8
from ptq.stats.base import TensorStats

RNG = np.random.default_rng(0)
GELU = (lambda z: z * ndtr(z))(3 * RNG.standard_normal(40_000)).astype(np.float32)

kept = pytest.mark.parametrize("name", ["minmax", "percentile", "mse", "lp"])


def params(name, x):
    found = solver(name).solve(TensorStats.of(x), UINT8, symmetric=False)
    return qparams_from_range(found.lo, found.hi, UINT8, symmetric=False)


def test_a_softmax_that_reaches_one_has_steps_of_a_255th():
    x = softmax(10 * RNG.standard_normal((400, 32)), axis=1).astype(np.float32)
    x[0] = np.eye(32)[0]
    found = params("minmax", x)
    assert found.scale == np.float32(1 / 255)
    assert found.zero_point == 0


@kept
def test_the_negative_side_of_gelu_has_codes_of_its_own(name):
    found = params(name, GELU)
    lo, _ = found.range()
    # the least value of GELU is -0.17; here a step is 0.05
    assert -0.17 - found.scale / 2 <= lo <= -0.17 + 1.5 * found.scale
