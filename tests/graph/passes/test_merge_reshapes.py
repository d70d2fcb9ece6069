"""A reshape of a reshape is one reshape."""

import pytest
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.merge_reshapes import MergeReshapes

FIRST = ["Reshape (x, flat)", "Flatten (x)", "Unsqueeze (x, one)", "Squeeze (x, one)"]


@pytest.mark.parametrize("first", FIRST)
def test_merged(first):
    model = load(f"""
        g (float[2, 1, 12] x) => (float[A, B] y)
        <int64[1] flat = {{-1}}, int64[1] one = {{1}}, int64[2] shape = {{-1, 3}}> {{
          h = {first}
          y = Reshape (h, shape)
        }}""")
    check_rewrite(MergeReshapes(), model, count=1)
    assert op_types(model) == ["Reshape"]


def test_a_chain_of_three():
    model = load("""
        g (float[2, 12] x) => (float[A, B] y)
        <int64[1] flat = {-1}, int64[3] cube = {2, 3, 4}, int64[2] shape = {8, -1}> {
          h = Reshape (x, flat)
          i = Reshape (h, cube)
          y = Reshape (i, shape)
        }""")
    check_rewrite(MergeReshapes(), model, count=2)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param("h = Reshape (x, flat) y = Reshape (h, copy)", id="a dimension is copied"),
        pytest.param("h = Reshape (x, flat) y = Reshape (h, s)", id="the shape is unknown"),
        pytest.param("h = Reshape (x, flat) y = Reshape (h, shape) z = Neg (h)", id="read twice"),
        pytest.param("h = Transpose (x) y = Reshape (h, shape)", id="the order changes"),
    ],
)
def test_these_stay(graph):
    model = load(f"""
        g (float[2, 12] x, int64[2] s) => (float[A, B] y)
        <int64[1] flat = {{-1}}, int64[2] copy = {{0, -1}}, int64[2] shape = {{8, 3}}> {{ {graph} }}
        """)
    assert MergeReshapes()(model).count == 0
