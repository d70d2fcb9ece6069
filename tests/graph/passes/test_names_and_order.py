"""Nodes get names and an order; dead code goes."""

import numpy as np
import pytest
from support.models import check_rewrite, load, op_types, random_feed, run

from ptq.errors import ModelError
from ptq.graph.passes.fix_names import FixNames
from ptq.graph.passes.remove_dead import RemoveDead
from ptq.graph.passes.sort_nodes import SortNodes


def test_names_are_made_of_what_can_be_found_in_the_graph():
    model = load("g (float[3] x) => (float[3] y) { a = Neg (x) b = Neg (a) c = Abs (b) y = Abs (c) }")
    model.graph[1].name = model.graph[2].name = "twin"  # which onnxruntime does not load
    assert FixNames()(model).count == 3
    run(model, random_feed(model))
    assert FixNames()(model).count == 0
    assert [node.name for node in model.graph] == ["Neg:a", "twin", "twin_2", "Abs:y"]


def test_a_name_that_exists_is_not_given_again():
    model = load("g (float[3] x) => (float[3] y) { a = Neg (x) y = Neg (a) }")
    model.graph[1].name = "Neg:a"
    check_rewrite(FixNames(), model, count=1)
    assert [node.name for node in model.graph] == ["Neg:a_2", "Neg:a"]


HIDING = """
    g (float[3] x, bool c) => (float[3] y) {
      h = Neg (x)
      i = Neg (x)
      k = Abs (i)
      z = If (c) <then_branch = t () => (float[3] u) { h = Abs (x) u = Add (h, i) },
                  else_branch = e () => (float[3] v) { v = Identity (i) }>
      y = Add (z, k)
    }"""


def test_a_subgraph_does_not_hide_tensors():
    model = load(HIDING)
    for node in model.graph.all_nodes():
        node.name = node.outputs[0].name + node.graph.name
    x = np.array([1, -2, 3], np.float32)
    feed = {"x": x, "c": np.array(True)}
    # the branch may be made to read the outer ``h`` in the place of ``i``, which is the same
    assert FixNames()(model).count == 1
    model.graph[1].outputs[0].replace_all_uses_with(model.graph[0].outputs[0])
    np.testing.assert_array_equal(run(model, feed)[0], np.abs(x) - x + np.abs(x))
    names = [value.name for node in model.graph.all_nodes() for value in node.outputs]
    assert len(set(names)) == len(names)
    assert FixNames()(model).count == 0


def test_nodes_are_sorted_and_keep_their_order_where_it_is_right():
    model = load("g (float[3] x) => (float[3] y) { a = Neg (x) b = Abs (a) c = Exp (x) y = Add (b, c) }")
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)
    assert SortNodes()(model).count > 0
    assert op_types(model) in (["Neg", "Abs", "Exp", "Add"], ["Exp", "Neg", "Abs", "Add"])
    assert SortNodes()(model).count == 0
    run(model, random_feed(model))


def test_what_a_subgraph_reads_comes_before_it():
    model = load("""
        g (float[3] x, bool c) => (float[3] y) {
          h = Neg (x)
          y = If (c) <then_branch = t () => (float[3] u) { u = Add (h, x) },
                      else_branch = e () => (float[3] v) { v = Identity (x) }>
        }""")
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)
    assert SortNodes()(model).count == 2
    assert op_types(model) == ["Neg", "If"]


def test_a_cycle_is_an_error():
    model = load("g (float[3] x) => (float[3] y) { a = Add (x, x) y = Add (a, x) }")
    model.graph[0].replace_input_with(1, model.graph[1].outputs[0])
    with pytest.raises(ModelError, match="cycle"):
        SortNodes()(model)


def test_dead_code_goes():
    model = load("""
        g (float[3] x, float[3] unused) => (float[3] y) <float[3] w, float[3] v> {
          a = Add (x, w)
          b = Neg (a)
          c = Abs (b)
          y = Mul (x, v)
        }""")
    check_rewrite(RemoveDead(), model, count=4)
    assert op_types(model) == ["Mul"]
    assert list(model.graph.initializers) == ["v"]


def test_what_only_a_subgraph_reads_lives():
    model = load("""
        g (float[3] x, bool c) => (float[3] y) <float[3] w> {
          h = Neg (x)
          y = If (c) <then_branch = t () => (float[3] u) { u = Add (h, w) },
                      else_branch = e () => (float[3] v) { v = Identity (x) }>
        }""")
    check_rewrite(RemoveDead(), model, count=0)
