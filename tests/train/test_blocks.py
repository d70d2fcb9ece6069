"""Blocks of small graphs: what belongs together, and what does not."""

import pytest
from support.nets import prepare

from ptq.train.blocks import find_blocks, find_layers

RESIDUAL = """
agraph (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y)
<float[4, 4, 3, 3] w, float[4, 4, 3, 3] v, float[4, 4, 3, 3] u>
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w)
  s = Relu (a)
  b = Conv <pads = [1, 1, 1, 1]> (s, v)
  c = Relu (b)
  d = Conv <pads = [1, 1, 1, 1]> (c, u)
  e = Add (d, s)
  y = Relu (e)
}
"""

SWISH = """
agraph (float[1, 4] x) => (float[1, 4] y)
<float[4, 4] w, float[4, 4] v>
{
  a = MatMul (x, w)
  b = Sigmoid (a)
  c = Mul (a, b)
  y = MatMul (c, v)
}
"""

ATTENTION = """
agraph (float[1, 5, 4] x, float[1, 1, 5] mask) => (float[1, 5, 4] y)
<float[4, 4] w0, float[4, 4] wq, float[4, 4] wk, float[4, 4] wv, float[4, 4] wo, float[1] minus>
{
  h = MatMul (x, w0)
  q = MatMul (h, wq)
  k = MatMul (h, wk)
  t = Transpose <perm = [0, 2, 1]> (k)
  s = MatMul (q, t)
  gap = Mul (mask, minus)
  sm = Add (s, gap)
  p = Softmax (sm)
  v = MatMul (h, wv)
  o = MatMul (p, v)
  z = MatMul (o, wo)
  y = Add (z, h)
}
"""

READ_INSIDE = RESIDUAL.replace(
    "(float[1, 4, 6, 6] y)", "(float[1, 4, 6, 6] y, float[1, 4, 6, 6] c)"
)


def blocks(text, find=find_blocks, **options):
    """Return the outputs of the values that the operators of each block make."""
    model = prepare(text)
    made = {node.name: node.outputs[0].name for node in model.graph}
    layers = {n.name for n in model.graph if any(v.is_initializer() for v in n.inputs[1:2])}
    layers -= {n.name for n in model.graph if n.op_type not in ("Conv", "MatMul")}
    found = find(model.graph, layers, **options)
    assert sorted(n for block in found for n in block.layers) == sorted(layers)
    return [([made[n] for n in b.nodes], list(b.inputs), b.output) for b in found]


def test_a_residual_block_goes_from_where_branches_part_to_the_activation_behind_the_sum():
    assert blocks(RESIDUAL) == [
        (["a", "s"], ["x"], "s"),
        (["b", "c", "d", "e", "y"], ["s"], "y"),
    ]


def test_a_layer_has_its_activation_function_with_it():
    assert blocks(RESIDUAL, find_layers) == [
        (["a", "s"], ["x"], "s"),
        (["b", "c"], ["s"], "c"),
        (["d"], ["c"], "d"),
    ]


@pytest.mark.parametrize("find", [find_blocks, find_layers])
def test_an_activation_function_may_be_spelled_out(find):
    assert blocks(SWISH, find) == [(["a", "b", "c"], ["x"], "c"), (["y"], ["c"], "y")]


def test_attention_is_one_block_that_reads_its_mask():
    (first, second) = blocks(ATTENTION)
    assert first == (["h"], ["x"], "h")
    assert second[0] == ["q", "k", "t", "s", "sm", "p", "v", "o", "z", "y"]
    assert (set(second[1]), second[2]) == ({"h", "gap"}, "y")


def test_of_blocks_within_blocks_the_largest_with_few_layers_counts():
    sizes = [len(nodes) for nodes, _, _ in blocks(ATTENTION, most=3)]
    assert sizes == [1, 8, 1]  # without the last product and the sum


def test_what_is_read_from_outside_is_no_block():
    assert blocks(READ_INSIDE) == blocks(READ_INSIDE, find_layers)
