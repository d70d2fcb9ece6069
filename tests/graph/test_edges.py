"""Which layers are the first and the last."""

from support.models import load

from ptq.graph.edges import edge_layers


def edges(text):
    return edge_layers(load(text))


def test_the_ends_of_a_chain():
    found = edges(
        """g (float[2, 4] x) => (float[2, 4] y) <float[4, 4] a, float[4, 4] b, float[4, 4] c>
        { [first] s = MatMul (x, a) t = Relu (s) [inner] u = MatMul (t, b)
          v = Relu (u) [last] y = MatMul (v, c) }"""
    )
    assert found == {"first", "last"}


def test_each_branch_has_ends_of_its_own():
    found = edges(
        """g (float[2, 4] x) => (float[2, 4] y, float[2, 4] z)
        <float[4, 4] a, float[4, 4] b, float[4, 4] c, float[4, 4] d>
        { [left] s = MatMul (x, a) [right] t = MatMul (x, b) u = Add (s, t)
          [inner] v = MatMul (u, c) [out] y = MatMul (v, d) z = Softmax (v) }"""
    )
    assert found == {"left", "right", "out"}


def test_products_of_activations_and_lookups():
    found = edges(
        """g (int64[2] i) => (float[2, 2] y) <float[9, 4] table, float[4, 4] a, float[4, 4] b>
        { [lookup] t = Gather (table, i) [inner] u = MatMul (t, a) [last] v = MatMul (u, b)
          w = Transpose (v) [product] y = MatMul (v, w) }"""
    )
    assert found == {"lookup", "last"}


def test_layers_that_share_the_weight_of_an_edge():
    found = edges(
        """g (float[2, 4] x) => (float[2, 4] y) <float[4, 4] a, float[4, 4] b, float[4, 4] c>
        { [first] s = MatMul (x, a) [again] t = MatMul (s, a) [inner] u = MatMul (t, b)
          [last] y = MatMul (u, c) }"""
    )
    assert found == {"first", "again", "last"}
