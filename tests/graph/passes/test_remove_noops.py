"""Operators without effect go, and those that have one stay."""

import onnx_ir as ir
import pytest
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.remove_noops import RemoveNoOps

WEIGHTS = """
    float ratio = {0.5}, bool off = {0}, bool on = {1}, int64[4] zeros = {0, 0, 0, 0},
    int64[4] pads = {0, 1, 0, 0}, int64[2] sizes = {2, 3}, int64[2] other = {3, 2},
    int64[2] start = {0, 0}, int64[2] end = {9223372036854775807, 2147483647},
    int64[2] near = {1, 3}, int64[2] steps = {1, 1}, int64[2] axes = {0, 1}, int64[2] back = {1, 2},
    int64[2] ones = {1, 1}"""


def graph(expression):
    model = load(f"""
        g (float[2, 3] x, bool b) => (float y) <{WEIGHTS}, float[2, 3] i, float[2, 3] h> {{
          i = Neg (x)
          h = {expression}
          y = Abs (h)
        }}""")
    model.graph.outputs[0].shape = None
    for node in model.graph:
        if node.outputs[0].name in "hi":
            node.outputs[0].shape = ir.Shape([2, 3])
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return model


@pytest.mark.parametrize(
    "expression",
    [
        "Identity (i)",
        "Dropout (i)",
        "Dropout (i, ratio)",
        "Dropout (i, ratio, off)",
        "Cast <to = 1> (i)",
        "Pad (i, zeros)",
        "Transpose <perm = [0, 1]> (i)",
        "Reshape (i, sizes)",
        "Expand (i, sizes)",
        "Slice (i, start, end)",
        "Slice (i, start, end, axes, steps)",
        "Flatten (i)",
        "Concat <axis = 0> (i)",
        "Sum (i)",
        "Max (i)",
    ],
)
def test_these_go(expression):
    model = check_rewrite(RemoveNoOps(), graph(expression), count=1)
    assert op_types(model) == ["Neg", "Abs"]


@pytest.mark.parametrize(
    "expression",
    [
        "Pad (i, pads)",
        "Transpose <perm = [1, 0]> (i)",
        "Transpose (i)",
        "Reshape (i, other)",
        "Slice (i, start, near)",
        "Slice (i, start, end, axes, back)",
        "Flatten <axis = 0> (i)",
        "Concat <axis = 0> (i, i)",
        "Sum (i, i)",
    ],
)
def test_these_stay(expression):
    model = graph(expression)
    for node in model.graph:
        node.outputs[0].shape = None if node.op_type in ("Reshape", "Expand") else ir.Shape([2, 3])
    assert RemoveNoOps()(model).count == 0


def test_dropout_whose_mask_is_read_stays():
    model = load("g (float[2] x) => (bool[2] y) { i = Neg (x) h, m = Dropout (i) y = Not (m) }")
    check_rewrite(RemoveNoOps(), model, count=0)


def test_dropout_in_training_mode_stays():
    model = load("""
        g (float[2] x) => (float[2] y) <float ratio = {0.5}, bool on = {1}> {
          i = Neg (x)
          y = Dropout <seed = 1> (i, ratio, on)
        }""")
    assert RemoveNoOps()(model).count == 0


def test_a_cast_to_another_type_stays():
    model = load("g (float[2] x) => (float[2] y) { a = Cast <to = 6> (x) y = Cast <to = 1> (a) }")
    model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.INT32)
    check_rewrite(RemoveNoOps(), model, count=0)


@pytest.mark.parametrize(
    ("first", "second"), [("[2, 0, 1]", "[1, 2, 0]"), ("[1, 0, 2]", "[1, 0, 2]")]
)
def test_transposes_that_undo_one_another(first, second):
    model = load(f"""
        g (float[2, 3, 4] x) => (float[2, 3, 4] y) {{
          a = Transpose <perm = {first}> (x)
          b = Transpose <perm = {second}> (a)
          y = Neg (b)
        }}""")
    check_rewrite(RemoveNoOps(), model, count=1)
    assert model.graph[-1].inputs[0].name == "x"


@pytest.mark.parametrize("second", ["<perm = [2, 0, 1]>", ""])
def test_transposes_that_do_not(second):
    model = load(f"""
        g (float[2, 3, 4] x) => (float[A, B, C] y) {{
          a = Transpose <perm = [2, 0, 1]> (x)
          b = Transpose {second} (a)
          y = Neg (b)
        }}""")
    check_rewrite(RemoveNoOps(), model, count=0)


def test_an_output_keeps_its_name():
    model = load("g (float[2] x) => (float[2] y) { h = Neg (x) y = Identity (h) }")
    check_rewrite(RemoveNoOps(), model, count=1)
    assert model.graph[0].outputs[0].name == "y"


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param("(float[2] x) => (float[2] y) { y = Identity (x) }", id="an input"),
        pytest.param(
            "(float[2] x) => (float[2] y) <float[2] w> { y = Identity (w) }", id="a weight"
        ),
        pytest.param(
            "(float[2] x) => (float[2] y, float[2] h) { h = Neg (x) y = Identity (h) }",
            id="another output",
        ),
    ],
)
def test_an_output_that_cannot_take_over_stays(graph):
    check_rewrite(RemoveNoOps(), load(f"g {graph}"), count=0)


def test_two_outputs_of_one_tensor_leave_one_copy():
    model = load("""
        g (float[2] x) => (float[2] y, float[2] z) { h = Neg (x) y = Identity (h) z = Identity (h) }
    """)
    check_rewrite(RemoveNoOps(), model, count=1)
    assert op_types(model) == ["Neg", "Identity"]


def test_a_subgraph_reads_past_it():
    model = load("""
        g (float[2] x, bool c) => (float[2] y) {
          h = Identity (x)
          y = If (c) <then_branch = t () => (float[2] u) { u = Neg (h) },
                      else_branch = e () => (float[2] v) { v = Identity (h) }>
        }""")
    check_rewrite(RemoveNoOps(), model, count=1)
    assert op_types(model) == ["If"]
