"""Nodes get names of their own, and subgraphs hide no tensors."""

import numpy as np
from support.models import check_rewrite, load, random_feed, run

from ptq.graph.passes.fix_names import FixNames


def test_names_are_made_of_what_can_be_found_in_the_graph():
    model = load(
        "g (float[3] x) => (float[3] y) { a = Neg (x) b = Neg (a) c = Abs (b) y = Abs (c) }"
    )
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
