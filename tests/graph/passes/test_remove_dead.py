"""What no output depends on goes."""

from support.models import check_rewrite, load, op_types

from ptq.graph.passes.remove_dead import RemoveDead


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
