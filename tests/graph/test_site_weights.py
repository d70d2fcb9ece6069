"""Weights that were found before: where the bias fits at their scales, and where it does not."""

import numpy as np
import pytest

from ptq.graph.site_weights import BIAS_LIMIT, rounded_alike
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.qtype import QType

STEP = np.float32(0.5)


def weight(codes, scale, *, qtype="int8", zero_point=0):
    params = QParams(
        np.array(scale, np.float32), np.full(len(scale), zero_point, np.int8), QType.parse(qtype), 0
    )
    return QTensor(np.array(codes, np.int8), params)


NEW = weight([[1, 2], [3, 4]], [0.5, 0.25])
OLD = weight([[5, 6], [7, 8]], [0.25, 0.5])


def test_codes_and_scales_found_before_are_taken():
    bias = np.array([1, -1], np.float32)
    for found in (rounded_alike(NEW, OLD, bias, STEP), rounded_alike(NEW, OLD, None, STEP)):
        np.testing.assert_array_equal(found.codes, OLD.codes)
        np.testing.assert_array_equal(found.qparams.scale, OLD.qparams.scale)


def test_a_channel_of_which_the_bias_would_not_fit_is_as_it_was():
    # twice what the old scale holds, and as much as the new one does
    bias = np.array([0.5 * 0.5 * BIAS_LIMIT, -1], np.float32)
    found = rounded_alike(NEW, OLD, bias, STEP)
    np.testing.assert_array_equal(found.codes, [[1, 2], [7, 8]])
    np.testing.assert_array_equal(found.qparams.scale, np.array([0.5, 0.5], np.float32))


@pytest.mark.parametrize(
    "other", [weight([[5, 6], [7, 7]], [0.25, 0.5], qtype="int4"),
              weight([[5, 6], [7, 8]], [0.25, 0.5], zero_point=3)],
)  # fmt: skip
def test_codes_of_another_grid_are_not_taken(other):
    found = rounded_alike(NEW, other, None, STEP)
    np.testing.assert_array_equal(found.codes, NEW.codes)
    np.testing.assert_array_equal(found.qparams.scale, NEW.qparams.scale)
