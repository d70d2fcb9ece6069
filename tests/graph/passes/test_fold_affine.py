"""Folding constants into linear operators keeps the function; what would not is left alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import check_rewrite, load, node_of, op_types

from ptq.graph.passes.fold_affine import FoldAffine

# Weight and bias are rounded once more to float32 (2^-24 relative) and at most some hundred
# products summed.
TOLERANCE = 1e-5

ELEMENTWISE = ["Mul (h, k)", "Mul (k, h)", "Add (h, k)", "Add (k, h)", "Sub (h, k)", "Sub (k, h)"]
ELEMENTWISE += ["Div (h, var_k)"]


@pytest.mark.parametrize("expression", ELEMENTWISE)
@pytest.mark.parametrize("shape", ["[]", "[1]", "[4, 1, 1]", "[1, 4, 1, 1]", "[1, 1, 1, 1]"])
@pytest.mark.parametrize("conv", ["Conv (x, w)", "Conv (x, w, b)", "ConvTranspose (x, w, b)"])
def test_behind_convolution(expression, shape, conv):
    model = load(f"""
        g (float[N, 4, 5, 5] x) => (float[N, 4, H, W] y)
        <float[4, 4, 3, 3] w, float[4] b, float{shape} k, float{shape} var_k> {{
          h = {conv}
          y = {expression}
        }}""")
    check_rewrite(FoldAffine(), model, count=1, tolerance=TOLERANCE)
    assert len(model.graph) == 1


@pytest.mark.parametrize("expression", ELEMENTWISE)
@pytest.mark.parametrize("shape", ["[]", "[1]", "[5]", "[1, 5]"])
@given(transposed=st.booleans(), beta=st.sampled_from([1.0, 0.5]), bias=st.booleans())
def test_behind_gemm(expression, shape, transposed, beta, bias):
    model = load(f"""
        g (float[N, 3] x) => (float[N, 5] y)
        <float{[5, 3] if transposed else [3, 5]} w, float[5] b, float{shape} k, float{shape} var_k>
        {{
          h = Gemm <transB = {int(transposed)}, alpha = 2.0, beta = {beta}>
              (x, w{", b" if bias else ""})
          y = {expression}
        }}""")
    check_rewrite(FoldAffine(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["Gemm"]


@pytest.mark.parametrize("expression", ["Mul (h, k)", "Div (h, var_k)"])
@pytest.mark.parametrize("shape", ["[]", "[5]"])
def test_a_scale_behind_matmul(expression, shape):
    model = load(f"""
        g (float[N, 2, 3] x) => (float[N, 2, 5] y)
        <float[3, 5] w, float{shape} k, float{shape} var_k> {{
          h = MatMul (x, w)
          y = {expression}
        }}""")
    check_rewrite(FoldAffine(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["MatMul"]


def test_matmul_with_its_bias_is_left_as_it_is():
    model = load("""
        g (float[N, 2, 3] x) => (float[N, 2, 5] y) <float[3, 5] w, float[5] b> {
          h = MatMul (x, w)
          y = Add (h, b)
        }""")
    check_rewrite(FoldAffine(), model, count=0)


def test_a_scale_behind_matmul_and_its_bias():
    model = load("""
        g (float[N, 2, 3] x) => (float[N, 2, 5] y) <float[3, 5] w, float[5] b, float[5] k> {
          m = MatMul (x, w)
          h = Add (b, m)
          y = Mul (h, k)
        }""")
    check_rewrite(FoldAffine(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["MatMul", "Add"]


def test_a_chain_folds_into_one_operator():
    model = load("""
        g (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y)
        <float[4, 4, 1, 1] w, float[4, 1, 1] k, float[1, 4, 1, 1] l, float m = {3}> {
          a = Conv (x, w)
          b = Mul (a, k)
          c = Add (b, l)
          y = Sub (m, c)
        }""")
    check_rewrite(FoldAffine(), model, count=3, tolerance=TOLERANCE)
    assert node_of(model, "Conv").outputs[0].name == "y"


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ("[5]", "the last axis is no channel axis"),
        ("[4, 5, 5]", "one number per element"),
        ("[3, 1, 1, 1]", "one number per image"),
        ("[1, 1, 4, 1, 1]", "the output would have one more dimension"),
        ("[1, 1, 1, 1, 1]", "the output would have one more dimension"),
    ],
)
def test_behind_convolution_stays(shape, why):
    model = load(f"""
        g (float[3, 4, 5, 5] x) => (float y) <float[4, 4, 1, 1] w, float{shape} k> {{
          h = Conv (x, w)
          y = Add (h, k)
        }}""")
    model.graph.outputs[0].shape = None
    assert FoldAffine()(model).count == 0, why


def test_a_constant_that_makes_more_channels_stays():
    model = load("""
        g (float[N, 4, 5, 5] x) => (float[N, 6, 5, 5] y) <float[1, 4, 1, 1] w, float[6, 1, 1] k> {
          h = Conv (x, w)
          y = Mul (h, k)
        }""")
    check_rewrite(FoldAffine(), model, count=0)


def test_division_by_zero_stays():
    model = load(
        """
        g (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y) <float[4, 4, 1, 1] w, float[4, 1, 1] k> {
          h = Conv (x, w)
          y = Div (h, k)
        }""",
        {"k": np.array([1, 0, 2, 3], np.float32).reshape(4, 1, 1)},
    )
    assert FoldAffine()(model).count == 0


def test_a_constant_divided_by_the_tensor_stays():
    model = load("""
        g (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y) <float[4, 4, 1, 1] w, float[4, 1, 1] k> {
          h = Conv (x, w)
          y = Div (k, h)
        }""")
    check_rewrite(FoldAffine(), model, count=0)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param("h = Conv (x, w) y = Mul (h, h)", id="squared"),
        pytest.param("h = Conv (x, w) y = Mul (h, k) z = Relu (h)", id="read twice"),
        pytest.param("h = Conv (w, x) y = Mul (h, k)", id="the weight is no constant"),
        pytest.param("h = Conv (x, w, b) y = Mul (h, k)", id="the bias is no constant"),
    ],
)
def test_these_stay(graph):
    model = load(f"""
        g (float[4, 4, 1, 1] x, float[4] b) => (float[4, 4, 1, 1] y)
        <float[4, 4, 1, 1] w, float[4, 1, 1] k> {{ {graph} }}""")
    check_rewrite(FoldAffine(), model, count=0)


def test_a_convolution_read_by_a_subgraph_stays():
    model = load("""
        g (float[N, 4, 5, 5] x, bool c) => (float[N, 4, 5, 5] y, float[N, 4, 5, 5] z)
        <float[4, 4, 1, 1] w, float[4, 1, 1] k> {
          h = Conv (x, w)
          y = Mul (h, k)
          z = If (c) <then_branch = t () => (float[N, 4, 5, 5] u) { u = Relu (h) },
                      else_branch = e () => (float[N, 4, 5, 5] v) { v = Neg (x) }>
        }""")
    check_rewrite(FoldAffine(), model, count=0)


SHARED = """
    g (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y, float[N, 4, 5, 5] z)
    <float[4, 4, 1, 1] w, float[4] b, float[4, 1, 1] k> {
      h = Conv (x, w, b)
      y = OP (h, k)
      z = Conv (x, w, b)
    }"""


def test_a_shared_weight_is_not_copied_for_a_scale():
    check_rewrite(FoldAffine(), load(SHARED.replace("OP", "Mul")), count=0)


def test_a_shared_bias_is_copied_for_a_shift():
    model = load(SHARED.replace("OP", "Add"))
    check_rewrite(FoldAffine(), model, count=1, tolerance=TOLERANCE)
    first, second = model.graph
    assert first.inputs[1] is second.inputs[1]
    assert first.inputs[2] is not second.inputs[2]


# -- in front of a linear operator -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "linear"),
    [
        ("Mul (x, k)", "Conv <pads = [1, 1, 1, 1]> (h, w, b)"),
        ("Div (x, k)", "Conv (h, w)"),
        ("Add (x, k)", "Conv (h, w, b)"),
        ("Sub (k, x)", "Conv (h, w)"),
        ("Sub (x, c)", "Conv (h, w)"),
        ("Mul (k, x)", "Conv <group = 2> (h, g, b)"),
        ("Add (c, x)", "Conv <group = 2> (h, g, b)"),
    ],
)
def test_in_front_of_a_convolution(expression, linear):
    model = load(f"""
        g (float[N, 4, 5, 5] x) => (float[N, 4, H, W] y)
        <float[4, 4, 3, 3] w, float[4, 2, 3, 3] g, float[4] b, float k, float[4, 1, 1] c> {{
          h = {expression}
          y = {linear}
        }}""")
    check_rewrite(FoldAffine(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["Conv"]


@pytest.mark.parametrize(
    ("expression", "linear"),
    [
        # padding is zero after the map, not the shift
        ("Add (x, k)", "Conv <pads = [1, 1, 1, 1]> (h, w, b)"),
        ("Add (x, k)", 'Conv <auto_pad = "SAME_UPPER"> (h, w, b)'),
        # weights of uneven size cost precision
        ("Mul (x, c)", "Conv (h, w)"),
        ("Div (k, x)", "Conv (h, w)"),
    ],
)
def test_what_a_convolution_cannot_take_in_front_is_left_alone(expression, linear):
    model = load(f"""
        g (float[N, 4, 5, 5] x) => (float[N, 4, H, W] y)
        <float[4, 4, 3, 3] w, float[4] b, float k, float[4, 1, 1] c> {{
          h = {expression}
          y = {linear}
        }}""")
    check_rewrite(FoldAffine(), model, count=0)


def test_what_others_read_too_is_left_in_front():
    model = load("""
        g (float[N, 4, 5, 5] x) => (float[N, 4, H, W] y, float[N, 4, H, W] h)
        <float[4, 4, 3, 3] w, float k> { h = Mul (x, k) y = Conv (h, w) }""")
    check_rewrite(FoldAffine(), model, count=0)


def test_a_weight_that_is_shared_takes_no_scale_from_the_front():
    model = load("""
        g (float[N, 4, 5, 5] x) => (float[N, 4, H, W] y)
        <float[4, 4, 1, 1] w, float k> {
          h = Mul (x, k) t = Conv (h, w) r = Relu (t) y = Conv (r, w)
        }""")
    check_rewrite(FoldAffine(), model, count=0)


@pytest.mark.parametrize("expression", ["Add (x, k)", "Sub (x, c)", "Mul (k, x)"])
def test_in_front_of_gemm(expression):
    model = load(f"""
        g (float[N, 4] x) => (float[N, 5] y) <float[4, 5] w, float[5] b, float k, float[4] c> {{
          h = {expression}
          y = Gemm (h, w, b)
        }}""")
    check_rewrite(FoldAffine(), model, count=1, tolerance=TOLERANCE)
    assert op_types(model) == ["Gemm"]
