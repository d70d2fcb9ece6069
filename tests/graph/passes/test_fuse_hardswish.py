"""HardSigmoid and HardSwish are found in every order that exporters write them in."""

import pytest
from support.models import check_rewrite, load, op_types

from ptq.graph.passes.fuse_hardswish import FuseHardSwish
from ptq.graph.passes.infer_shapes import InferShapes

# One operator rounds once where three rounded three times (2^-24 relative each).
TOLERANCE = 1e-6

DECLARED = """float three = {3}, float zero = {0}, float six = {6}, float sixth = {0.16666667},
    float[1] four = {4}, float one = {1}, float paddle = {0.1666666}, float[2] many = {6, 6},
    float[1, 1, 1] wide = {6}"""


def model(body, declared=DECLARED, opset=21, outputs="float[N, 8] y"):
    text = f"g (float[N, 8] x) => ({outputs}) <{declared}> {{ {body} }}"
    found = load(text, opset=opset)
    InferShapes()(found)
    return found


@pytest.mark.parametrize(
    "body",
    [
        "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)",
        "a = Add (three, x) c = Clip (a, zero, six) m = Mul (c, x) y = Div (m, six)",
        "a = Add (x, three) c = Clip (a, zero, six) m = Mul (c, x) y = Mul (m, sixth)",
        "a = Add (x, three) c = Clip (a, zero, six) m = Mul (c, x) y = Mul (paddle, m)",
        "a = Add (x, three) c = Clip (a, zero, six) d = Div (c, six) y = Mul (d, x)",
        "a = Add (x, three) c = Clip (a, zero, six) d = Mul (sixth, c) y = Mul (x, d)",
    ],
)
def test_a_hardswish_that_is_written_out(body):
    found = model(body)
    # the gate, and then the product with it
    check_rewrite(FuseHardSwish(), found, count=2, tolerance=TOLERANCE)
    assert op_types(found) == ["HardSwish"]
    assert found.graph[0].outputs[0].name == "y"


def test_hardsigmoid_times_its_input():
    body = "h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, h)"
    found = model(body)
    check_rewrite(FuseHardSwish(), found, count=1, tolerance=TOLERANCE)
    assert op_types(found) == ["HardSwish"]


@pytest.mark.parametrize(
    ("body", "alpha", "beta"),
    [
        ("a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six)", 1 / 6, 0.5),
        ("a = Add (one, x) c = Clip (a, zero, four) y = Div (c, four)", 0.25, 0.25),
    ],
)
def test_a_hardsigmoid_that_is_written_out(body, alpha, beta):
    found = model(body)
    check_rewrite(FuseHardSwish(), found, count=1, tolerance=TOLERANCE)
    [node] = found.graph
    assert node.op_type == "HardSigmoid"
    attributes = node.attributes
    assert (attributes["alpha"].value, attributes["beta"].value) == pytest.approx((alpha, beta))


def test_the_product_with_something_else_keeps_its_place():
    body = "s = Abs (x) a = Add (x, three) c = Clip (a, zero, six) m = Mul (s, c) y = Div (m, six)"
    found = model(body)
    check_rewrite(FuseHardSwish(), found, count=1, tolerance=TOLERANCE)
    assert op_types(found) == ["Abs", "HardSigmoid", "Mul"]
    assert found.graph[-1].outputs[0].name == "y"


@pytest.mark.parametrize(
    "body",
    [
        # the bounds
        "a = Add (x, three) c = Clip (a, one, six) m = Mul (x, c) y = Div (m, six)",
        "a = Add (x, three) c = Clip (a, zero) m = Mul (x, c) y = Div (m, six)",
        "a = Add (x, three) c = Clip (a, , six) m = Mul (x, c) y = Div (m, six)",
        # the divisor
        "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, three)",
        "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (six, m)",
        "a = Add (x, three) c = Clip (a, zero, six) y = Mul (x, c)",
        # two tensors
        "s = Abs (x) a = Add (x, s) c = Clip (a, zero, six) y = Div (c, six)",
        # others read what is in between
        "a = Add (x, three) c = Clip (a, zero, six) d = Div (c, six) y = Add (d, c)",
        "a = Add (x, three) c = Clip (a, zero, six) d = Div (c, six) y = Add (d, a)",
        "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) d = Div (m, six) y = Add (d, m)",
        "h = HardSigmoid <alpha = 0.16666667> (x) m = Mul (x, h) y = Add (m, h)",
        # not the slope or the offset of HardSwish
        "h = HardSigmoid (x) y = Mul (x, h)",
        "h = HardSigmoid <alpha = 0.16666667, beta = 0.4> (x) y = Mul (x, h)",
        "s = Abs (x) h = HardSigmoid <alpha = 0.16666667> (x) y = Mul (s, h)",
        "h = HardSigmoid <alpha = 0.16666667> (x) y = Mul (h, h)",
    ],
)
def test_what_is_something_else_is_left_alone(body):
    check_rewrite(FuseHardSwish(), model(body), count=0)


def test_an_inner_value_that_is_an_output_is_left_alone():
    body = "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)"
    for name in "acm":
        found = model(body, outputs=f"float[N, 8] y, float[N, 8] {name}")
        check_rewrite(FuseHardSwish(), found, count=0)


def test_a_divisor_that_adds_a_dimension_is_left_alone():
    body = "a = Add (x, three) c = Clip (a, zero, six) y = Div (c, wide)"
    found = model(body, outputs="float[A, N, 8] y")
    check_rewrite(FuseHardSwish(), found, count=0)


def test_integers_are_left_alone():
    text = """g (int32[4] x) => (int32[4] y)
        <int32 three = {3}, int32 zero = {0}, int32 six = {6}> {
        a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six) }"""
    check_rewrite(FuseHardSwish(), load(text), count=0)


def test_before_opset_14_there_is_no_hardswish():
    body = "h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, h)"
    check_rewrite(FuseHardSwish(), model(body, opset=13), count=0)


def test_a_clip_that_a_body_reads_is_left_alone():
    text = f"""g (float[4] x, bool b) => (float[4] y) <{DECLARED}> {{
        a = Add (x, three) c = Clip (a, zero, six)
        y = If (b) <then_branch = t () => (float[4] p) {{ p = Div (c, six) }},
                    else_branch = e () => (float[4] q) {{ q = Identity (x) }}>
    }}"""
    check_rewrite(FuseHardSwish(), load(text), count=0)
