"""Constant expressions are computed as onnxruntime would, and never without bound."""

import numpy as np
import pytest
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.fold_constants import FoldConstants

EXPRESSIONS = {
    "Add (a, b)": 0,
    "Mul (a, row)": 0,
    "Sub (a, row)": 0,
    "Div (a, b)": 0,
    "Pow (var_a, b)": 1e-6,  # libm of numpy and of onnxruntime
    "Sqrt (var_a)": 1e-6,
    "Exp (a)": 1e-6,
    "Neg (a)": 0,
    "Max (a, b, row)": 0,
    "Where (mask, a, b)": 0,
    "Transpose <perm = [1, 0]> (a)": 0,
    "Transpose (a)": 0,
    "Reshape (a, to_row)": 0,
    "Concat <axis = 1> (a, b)": 0,
    "Slice (a, one, three, one)": 0,
    "Gather <axis = 1> (a, one)": 0,
    "Expand (row, sizes)": 0,
    "Tile (a, twice)": 0,
    "Unsqueeze (a, one)": 0,
    "ReduceMean <keepdims = 0> (a, one)": 1e-6,
    "ReduceSum (a, one)": 1e-6,
    "Flatten <axis = 0> (a)": 0,
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_gives_what_onnxruntime_gives(expression):
    model = load(f"""
        g (float x) => (float y)
        <float[3, 4] a, float[3, 4] b, float[3, 4] var_a, float[4] row,
         bool[3, 4] mask, int64[2] to_row = {{-1, 2}}, int64[1] one = {{1}},
         int64[1] three = {{3}}, int64[2] sizes = {{3, 4}}, int64[2] twice = {{2, 1}}> {{
          h = {expression}
          y = Add (h, x)
        }}""")
    model.graph.outputs[0].shape = None
    check_rewrite(FoldConstants(), model, count=1, tolerance=EXPRESSIONS[expression])
    assert op_types(model) == ["Add"]


@pytest.mark.parametrize(
    "expression",
    [
        "Div (a, b)",  # towards zero
        "Mod (a, b)",  # sign of the divisor
        "Mod <fmod = 1> (a, b)",  # sign of the dividend
        "Mul (a, b)",
        "Cast <to = 6> (f)",
        "Less (a, b)",
        "Range (zero, nine, two)",
        "ConstantOfShape <value = int64[1] {7}> (sizes)",
        "Shape (f)",
        "Size (f)",
    ],
)
def test_integers(expression):
    model = load(f"""
        g (int64 x) => (double y)
        <int64[4] a = {{7, -7, 7, -7}}, int64[4] b = {{2, 2, -2, -2}},
         float[3] f = {{1.5, -1.5, 2}}, int64 zero = {{0}},
         int64 nine = {{9}}, int64 two = {{2}}, int64[2] sizes = {{2, 3}}> {{
          h = {expression}
          i = Cast <to = 11> (h)
          j = Cast <to = 11> (x)
          y = Add (i, j)
        }}""")
    model.graph.outputs[0].shape = None
    check_rewrite(FoldConstants(), model, count=2)


def test_several_outputs():
    model = load("""
        g (float[3, 2] x) => (float[3, 2] y)
        <float[3, 4] a, int64[2] sizes = {2, 2}> {
          h, i = Split <axis = 1> (a, sizes)
          j = Mul (h, i)
          y = Add (x, j)
        }""")
    check_rewrite(FoldConstants(), model, count=2)


def test_a_folded_tensor_keeps_its_name_even_as_an_output():
    model = load("""
        g (float[3] x) => (float[3] y, float[3] h) <float[3] a> {
          h = Neg (a)
          y = Add (x, h)
        }""")
    check_rewrite(FoldConstants(), model, count=1)
    assert "h" in model.graph.initializers


def test_what_depends_on_an_input_stays():
    model = load("g (float[3] x) => (float[3] y) <float[3] a> { y = Add (x, a) }")
    check_rewrite(FoldConstants(), model, count=0)


def test_an_initializer_that_callers_may_override_stays():
    model = load("g (float[3] a) => (float[3] y) <float[3] b> { y = Neg (a) }")
    value = model.graph.inputs[0]
    value.const_value = model.graph.initializers["b"].const_value
    model.graph.register_initializer(value)
    assert FoldConstants()(model).count == 0


def test_a_subgraph_sees_the_folded_constant():
    model = load("""
        g (float[3] x, bool c) => (float[3] y) <float[3] a> {
          h = Neg (a)
          y = If (c) <then_branch = t () => (float[3] u) { u = Add (x, h) },
                      else_branch = e () => (float[3] v) { v = Sub (x, h) }>
        }""")
    check_rewrite(FoldConstants(), model, count=1)


@pytest.mark.parametrize(
    "expression",
    [
        "ConstantOfShape (huge)",
        "Expand (one, huge)",
        "Tile (row, huge)",
        "Range (zero, end, step)",
        "Mul (column, long_row)",
        "ConstantOfShape (overflowing)",
    ],
)
def test_a_bomb_is_not_computed(expression):
    model = load(
        f"""
        g (float[1] x) => (float y)
        <int64[1] huge = {{1000000000000}}, int64[3] overflowing = {{4294967296, 4294967296, 2}},
         float[1] one = {{1}}, float[2] row, float zero = {{0}}, float end = {{1e12}},
         float step = {{1}}, float[9000, 1] column, float[1, 9000] long_row> {{
          h = {expression}
          y = Identity (x)
        }}"""
    )
    assert FoldConstants()(model).count == 0


def test_doubling_again_and_again_ends():
    steps = "\n".join(f"h{i + 1} = Concat <axis = 0> (h{i}, h{i})" for i in range(40))
    model = load(f"g (float[1] x) => (float[1] y) <float[1000] h0> {{ {steps} y = Neg (x) }}")
    count = FoldConstants()(model).count
    total = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    assert 0 < count < 40
    assert total < 64 << 20
    assert FoldConstants()(model).count == 0


def test_a_large_weight_that_nobody_else_reads_is_reshaped_and_cast():
    model = load(
        """
        g (float[1, 512] x) => (float[1, 600] y) <float16[600, 512] w> {
          a = Transpose (w)
          b = Cast <to = 1> (a)
          y = MatMul (x, b)
        }"""
    )
    # onnxruntime packs a constant matrix and multiplies by it in another order
    check_rewrite(FoldConstants(), model, count=2, tolerance=1e-6)
    assert model.graph[0].inputs[1].const_value.numpy().flags.c_contiguous


def test_wrong_models_are_left_to_the_runtime():
    model = load("g (float x) => (float y) <float[3] a, float[4] b> { h = Add (a, b) y = Neg (x) }")
    assert FoldConstants()(model).count == 0


def test_a_log_of_zero_is_the_infinity_it_is_at_run_time():
    model = load(
        "g (float[2] x) => (float[2] y) <float[2] a> { h = Log (a) y = Min (h, x) }",
        {"a": np.array([0, 1], np.float32)},
    )
    check_rewrite(FoldConstants(), model, count=1)
