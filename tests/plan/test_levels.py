"""Levels in plans: which tensors have them, and what shares their codes."""

import numpy as np
import pytest

from ptq.calib import parse_method
from ptq.numerics.qtype import QType
from ptq.plan.make import RangeChoice, decide
from ptq.plan.request import Request
from ptq.stats.base import TensorStats

ASKED = [
    Request("a", observed="a"),
    Request("copy", copies="a", factor=2.0),
    Request("moved", observed="moved", copies="a", shift=3.0),
    Request("one", constant=(1.0, 1.0)),
    Request("left", observed="left"),
    Request("right", observed="right"),
    Request("both", joins=("left", "right")),
]


def decisions(bits=4, *, method="lloyd", symmetric=False):
    rng = np.random.default_rng(0)
    stats = {
        name: TensorStats.of(rng.standard_normal(5000).astype(np.float32))
        for name in ("a", "moved", "left", "right")
    }
    choice = RangeChoice(parse_method(method), QType(bits, signed=False), symmetric)
    return decide(ASKED, stats, choice)


@pytest.mark.parametrize("symmetric", [False, True])
def test_levels_are_codes_of_the_full_grid_that_cover_the_range(symmetric):
    found = decisions(symmetric=symmetric)["a"]
    assert (found.qtype, found.bits, len(found.levels)) == ("uint8", 4, 16)
    assert len(found.starts) == 15
    assert found.zero_point in found.levels
    assert (found.zero_point == 128) == symmetric
    lowest, highest = found.values[0], found.values[-1]
    np.testing.assert_allclose((lowest, highest), (found.lo, found.hi), atol=found.scale)
    assert symmetric or (found.levels[0], found.levels[-1]) == (0, 255)


def test_a_copy_has_the_codes_and_does_not_look_them_up():
    found = decisions()
    assert found["copy"].levels == found["a"].levels
    assert found["copy"].starts == ()
    np.testing.assert_allclose(found["copy"].values, 2 * np.array(found["a"].values), rtol=1e-6)


def test_no_grid_with_levels_is_enlarged_for_a_shift():
    found = decisions()
    assert found["moved"].observed == "moved"
    assert found["moved"].starts


@pytest.mark.parametrize("name", ["one", "left", "right", "both"])
def test_constants_and_concatenations_have_the_uniform_grid(name):
    found = decisions()[name]
    assert (found.qtype, found.levels, found.starts) == ("uint4", (), ())


def test_eight_bits_have_no_levels():
    assert decisions(8) == decisions(8, method="mse")
