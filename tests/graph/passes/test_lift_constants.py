"""Every Constant node of the main graph becomes an initializer of the same name and value."""

import numpy as np
import pytest
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.lift_constants import LiftConstants


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("value = float[2] {1.5, 2}", np.array([1.5, 2], np.float32)),
        ("value_float = 1.5", np.array(1.5, np.float32)),
        ("value_floats = [1.5, 2.0]", np.array([1.5, 2], np.float32)),
        ("value_int = 3", np.array(3)),
        ("value_ints = [3, 4]", np.array([3, 4])),
    ],
)
def test_numbers(attribute, expected):
    model = load(f"g (float x) => (float y) {{ c = Constant <{attribute}> () y = Identity (x) }}")
    assert LiftConstants()(model).count == 1
    array = model.graph.initializers["c"].const_value.numpy()
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)
    assert model.graph.initializers["c"].shape == expected.shape


@pytest.mark.parametrize(
    ("attribute", "shape"), [('value_string = "ab"', ()), ('value_strings = ["ab", "c"]', (2,))]
)
def test_strings(attribute, shape):
    model = load(f"g (float x) => (string{list(shape)} c) {{ c = Constant <{attribute}> () }}")
    check_rewrite(LiftConstants(), model, count=1)
    assert model.graph.initializers["c"].shape == shape


def test_an_output_of_the_graph():
    model = load("""
        g (float[1] x) => (float[1] y, float[1] c) {
          c = Constant <value = float[1] {2}> ()
          y = Add (x, c)
        }""")
    check_rewrite(LiftConstants(), model, count=1)
    assert op_types(model) == ["Add"]


def test_a_subgraph_reads_what_was_lifted_and_keeps_its_own():
    model = load("""
        g (float[1] x, bool b) => (float[1] y) {
          c = Constant <value = float[1] {2}> ()
          y = If (b) <then_branch = t () => (float[1] u) { u = Add (x, c) },
                      else_branch = e () => (float[1] v) { v = Constant <value_floats = [3.0]> () }>
        }""")
    check_rewrite(LiftConstants(), model, count=1)
    assert op_types(model) == ["If"]
