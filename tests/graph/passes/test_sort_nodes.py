"""Nodes come after what they and their subgraphs read."""

import pytest
from support.models import load, op_types, random_feed, run

from ptq.errors import ModelError
from ptq.graph.passes.sort_nodes import SortNodes


def test_nodes_are_sorted_and_keep_their_order_where_it_is_right():
    model = load(
        "g (float[3] x) => (float[3] y) { a = Neg (x) b = Abs (a) c = Exp (x) y = Add (b, c) }"
    )
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
