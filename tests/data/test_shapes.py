"""Shapes over several models, and of dynamic axes."""

import numpy as np
import pytest

from ptq.data import InputSpec
from ptq.data.shapes import common_inputs, settle_shapes
from ptq.errors import ConfigError


def spec(name="x", shape=("N", 3, 8, 8), dtype="float32"):
    return InputSpec(name, np.dtype(dtype), shape)


def shapes(inputs, **given):
    return [s.shape for s in settle_shapes(inputs, given).inputs]


def test_a_fixed_shape_stays_and_a_dynamic_batch_is_one():
    assert shapes([spec(shape=(4, 3, 8, 8))]) == [(4, 3, 8, 8)]
    assert shapes([spec()]) == [(1, 3, 8, 8)]
    assert shapes([spec(shape=(None, 3))]) == [(1, 3)]
    assert shapes([spec(shape=())]) == [()]


def test_what_was_taken_for_granted_is_said_with_the_option_that_changes_it():
    assert settle_shapes([spec()], {}).notices == (
        "axis 0 ('N') of input 'x' is taken as 1; give --shape x=1x3x8x8 for another batch",
    )
    assert settle_shapes([spec(shape=(None, 3))], {}).notices[0].startswith("axis 0 of input 'x'")
    assert not settle_shapes([spec(shape=(4, 3))], {}).notices
    assert not settle_shapes([spec()], {"x": (2, 3, 8, 8)}).notices


def test_a_shape_that_is_given_is_used():
    assert shapes([spec()], x=(5, 3, 8, 8)) == [(5, 3, 8, 8)]
    assert [s.shape for s in settle_shapes([spec()], {"": (5, 3, 8, 8)}).inputs] == [(5, 3, 8, 8)]
    assert shapes([spec(shape=None)], x=(5,)) == [(5,)]


def test_axes_of_one_name_have_one_size():
    inputs = [spec("ids", ("N", "T")), spec("mask", ("N", "T")), spec("other", ("?", "T", "N"))]
    assert shapes(inputs, ids=(2, 64)) == [(2, 64), (2, 64), (1, 64, 2)]


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (
            [spec(shape=("N", 3, "H", None))],
            {},
            "axis 2 ('H') of input 'x' is dynamic, (N, 3, H, ?); give its size as in "
            "--shape x=1x3x64x64, or real inputs as data",
        ),
        ([spec(shape=("?", "?"))], {"": (1, 2, 3)}, "--shape: input 'x' has shape (1, 2, 3)"),
        ([spec()], {"x": (1, 4, 8, 8)}, "--shape: input 'x' has shape (1, 4, 8, 8)"),
        ([spec()], {"y": (1,)}, "--shape: there is no input 'y'; choose from: x"),
        (
            [spec("a", (1,)), spec("b", (1,))],
            {"": (1, 2)},
            "write --shape NAME=1x2 for one of: a, b",
        ),
        ([spec(shape=None)], {}, "input 'x' does not say its rank"),
    ],
)
def test_what_cannot_be_settled_names_input_axis_and_option(inputs, given, message):
    with pytest.raises(ConfigError) as caught:
        settle_shapes(inputs, given)
    assert message in str(caught.value)


def test_what_one_model_fixes_is_fixed():
    [found] = common_inputs(
        {"a": [spec(shape=("N", 3, None))], "b": [spec(shape=(1, 3, 8))], "c": [spec(shape=None)]}
    )
    assert found.shape == (1, 3, 8)
    assert common_inputs({"a": [spec(shape=None)], "b": [spec()]}) == (spec(),)


def test_inputs_are_known_by_name_whatever_their_order():
    one, two = spec("one"), spec("two")
    assert common_inputs({"a": [one, two], "b": [two, one]}) == (one, two)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([], "the inputs of 'b' are none, those of 'a' 'x'"),
        ([spec("y")], "the inputs of 'b' are 'y', those of 'a' 'x'"),
        ([spec(dtype="uint8")], "input 'x' is float32 in 'a' and uint8 in 'b'"),
        ([spec(shape=(1, 3))], "input 'x' is (N, 3, 8, 8) in 'a' and (1, 3) in 'b'"),
        ([spec(shape=(1, 3, 9, 8))], "input 'x' is (N, 3, 8, 8) in 'a' and (1, 3, 9, 8) in 'b'"),
    ],
)
def test_models_with_other_inputs_cannot_be_compared(other, message):
    with pytest.raises(ConfigError) as caught:
        common_inputs({"a": [spec()], "b": other})
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("; only models with the same inputs can be compared")
