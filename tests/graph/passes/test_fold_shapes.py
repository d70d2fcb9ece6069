"""Shape arithmetic is folded as far as it does not depend on a dynamic dimension."""

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.fold_shapes import FoldShapes

INDEX = st.integers(-4, 3)


def graph(body, *, shape="N, 3, 8, 5"):
    return load(f"""
        g (float[{shape}] x) => (int64 y)
        <int64 i0 = {{0}}, int64 i1 = {{1}}, int64 i2 = {{2}}, int64 minus = {{-7}},
         int64[1] v0 = {{0}}, int64[1] v1 = {{1}}, int64[1] v2 = {{2}}, int64[1] v3 = {{3}},
         int64[2] pair = {{3, 1}}> {{
          s = Shape (x)
          {body}
          y = Identity (h)
        }}""")


@pytest.mark.parametrize(
    ("body", "folded"),
    [
        ("h = Gather (s, i1)", 1),
        ("h = Gather (s, pair)", 1),
        ("h = Slice (s, v1, v3)", 1),
        ("h = Slice (s, v1, v3, v0, v2)", 1),
        ("a = Gather (s, i2) h = Unsqueeze (a, v0)", 2),
        ("a = Slice (s, v1, v2) h = Squeeze (a, v0)", 2),
        ("a = Gather (s, v1) b = Gather (s, v2) h = Concat <axis = 0> (a, b, v2)", 3),
        ("a = Gather (s, i1) h = Mul (a, i2)", 2),
        ("a = Gather (s, i2) b = Add (a, i1) c = Sub (b, minus) h = Div (minus, i2)", 4),
        ("a = Cast <to = 7> (s) h = Gather (a, i1)", 1),
    ],
)
def test_what_is_known_is_folded(body, folded):
    model = graph(body)
    model.graph.outputs[0].shape = None
    check_rewrite(FoldShapes(), model, count=folded)


@pytest.mark.parametrize(
    "body",
    [
        "h = Gather (s, i0)",
        "h = Slice (s, v0, v2)",
        "a = Gather (s, v0) h = Concat <axis = 0> (a, v1)",
        "a = Gather (s, i0) h = Mul (a, i2)",
        "h = Identity (s)",
    ],
)
def test_what_depends_on_the_batch_stays(body):
    model = graph(body)
    model.graph.outputs[0].shape = None
    check_rewrite(FoldShapes(), model, count=0)


def test_a_static_shape_is_a_constant():
    model = graph("h = Cast <to = 7> (s)", shape="2, 3, 8, 5")
    model.graph.outputs[0].shape = None
    check_rewrite(FoldShapes(), model, count=2)


@given(start=INDEX, end=st.one_of(st.none(), INDEX))
def test_shape_with_start_and_end(start, end):
    attributes = f"start = {start}" + ("" if end is None else f", end = {end}")
    model = graph(f"h = Shape <{attributes}> (x)", shape="2, 3, 8, 5")
    model.graph.outputs[0].shape = None
    check_rewrite(FoldShapes(), model, count=2)


@given(start=st.integers(-6, 6), end=st.integers(-6, 6), step=st.sampled_from([-2, -1, 1, 2, 3]))
def test_slices_agree_with_onnxruntime(start, end, step):
    model = load(f"""
        g (float[2, 3, 8, 5] x) => (int64[K] y)
        <int64[1] start = {{{start}}}, int64[1] end = {{{end}}}, int64[1] axis = {{0}},
         int64[1] step = {{{step}}}> {{
          s = Shape (x)
          h = Slice (s, start, end, axis, step)
          y = Identity (h)
        }}""")
    check_rewrite(FoldShapes(), model, count=2 if step > 0 else 1)


def test_division_goes_towards_zero():
    model = load("""
        g (float[3, 8] x) => (int64[2] y) <int64[2] by = {-2, 3}> {
          s = Shape (x)
          h = Div (s, by)
          y = Identity (h)
        }""")
    check_rewrite(FoldShapes(), model, count=2)


def test_a_negative_dimension_is_not_believed():
    model = graph("h = Gather (s, i0)", shape="N, 3, 8, 5")
    model.graph.inputs[0].shape = ir.Shape([-1, 3, 8, 5])
    assert FoldShapes()(model).count == 0
    assert op_types(model) == ["Shape", "Gather", "Identity"]


def test_the_declared_shape_of_an_output_is_not_believed():
    model = load("""
        g (float[N, 3] x) => (float[1, 3] h, int64 y) <int64 i = {0}> {
          h = Neg (x)
          s = Shape (h)
          y = Gather (s, i)
        }""")
    assert FoldShapes()(model).count == 0


def test_indices_out_of_range_are_left_to_the_runtime():
    model = graph("h = Gather (s, v3) i = Gather (h, v3)")
    assert FoldShapes()(model).count == 1
