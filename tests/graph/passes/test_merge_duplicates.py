"""What is computed twice is computed once, unless it only looks the same."""

import pytest
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.merge_duplicates import MergeDuplicates


def test_a_chain_merges_from_its_start():
    model = load("""
        g (float[N, 3] x) => (float[3] y)
        <int64[1] one = {1}, int64[1] also_one = {1}> {
          s = Shape (x)
          a = Gather (s, one)
          t = Shape (x)
          b = Gather (t, also_one)
          c = Mul (a, b)
          d = Cast <to = 1> (c)
          e = ReduceSum <keepdims = 0> (x, one)
          f = ReduceSum <keepdims = 0> (x, also_one)
          h = Add (e, f)
          y = Add (h, d)
        }""")
    model.graph.outputs[0].shape = None
    check_rewrite(MergeDuplicates(), model, count=3)
    assert op_types(model).count("Gather") == 1


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(("Neg (x)", "Neg (z)"), id="other inputs"),
        pytest.param(("Add (x, a)", "Add (x, b)"), id="other constants"),
        pytest.param(("Sub (x, z)", "Sub (z, x)"), id="other order"),
        pytest.param(("Neg (x)", "Abs (x)"), id="other operators"),
        pytest.param(
            ("Gemm <alpha = 1.0> (x, z)", "Gemm <alpha = 2.0> (x, z)"), id="other attributes"
        ),
        pytest.param(("Gemm (x, z)", "Gemm <transA = 0> (x, z)"), id="a default written out"),
        pytest.param(("RandomNormalLike (x)", "RandomNormalLike (x)"), id="random"),
        pytest.param(("my.domain.Op (x)", "my.domain.Op (x)"), id="unknown operators"),
    ],
)
def test_these_stay(pair):
    model = load(f"""
        <ir_version: 8, opset_import: ["" : 21, "my.domain" : 1]>
        g (float[3, 3] x, float[3, 3] z) => (float[3, 3] y)
        <float[3] a = {{1, 2, 3}}, float[3] b = {{1, 2, 4}}> {{
          h = {pair[0]}
          i = {pair[1]}
          y = Add (h, i)
        }}""")
    assert MergeDuplicates()(model).count == 0


def test_constants_of_other_types_or_shapes_are_not_the_same():
    model = load("""
        g (float[1] x) => (float y)
        <int64[1] a = {1}, int64 b = {1}> {
          h = Gather (x, a)
          i = Gather (x, b)
          y = Add (h, i)
        }""")
    assert MergeDuplicates()(model).count == 0


def test_attributes_that_are_tensors_are_compared_by_value():
    model = load("""
        g (int64[1] x) => (float[K] y) {
          h = ConstantOfShape <value = float[1] {1}> (x)
          i = ConstantOfShape <value = float[1] {1}> (x)
          j = ConstantOfShape <value = float[1] {2}> (x)
          k = Add (h, i)
          y = Add (k, j)
        }""")
    check_rewrite(MergeDuplicates(), model, count=1)


def test_outputs_keep_their_nodes():
    model = load("""
        g (float[3] x) => (float[3] y, float[3] z) { y = Neg (x) z = Neg (x) h = Neg (x) }""")
    check_rewrite(MergeDuplicates(), model, count=1)
    assert op_types(model) == ["Neg", "Neg"]


def test_branches_are_not_compared():
    branch = """If (c) <then_branch = t () => (float[3] u) { u = Neg (x) },
                       else_branch = e () => (float[3] v) { v = Abs (x) }>"""
    model = load(f"""
        g (float[3] x, bool c) => (float[3] y) {{ h = {branch} i = {branch} y = Add (h, i) }}""")
    check_rewrite(MergeDuplicates(), model, count=0)


def test_a_subgraph_reads_the_one_that_is_left():
    model = load("""
        g (float[3] x, bool c) => (float[3] y) {
          h = Neg (x)
          i = Neg (x)
          y = If (c) <then_branch = t () => (float[3] u) { u = Add (h, i) },
                      else_branch = e () => (float[3] v) { v = Identity (i) }>
        }""")
    check_rewrite(MergeDuplicates(), model, count=1)
