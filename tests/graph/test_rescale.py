"""A product with a positive constant is a matter of the scale: no kernel, the same codes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import random_feed
from support.nets import ORDINARY, Settings, check, quantize, run, simulate

DECLARED = """float[4, 4, 1, 1] w, float[4, 4, 3, 3] v, float half = {0.5}, float two = {2},
    float third = {0.33}, float[1] one_half = {0.5}, float[1, 1, 1, 1] four = {4},
    float minus = {-0.5}, float none = {0}, float[4, 1, 1] array = {0.5, 1, 2, 4},
    float[1, 1, 1, 1, 1] wide = {0.5}"""


def model(body, outputs="float[N, C, H, W] y"):
    return f"g (float[1, 4, 6, 6] x) => ({outputs}) <{DECLARED}> {{ {body} }}"


def operators(quantized):
    return [node.op_type for node in quantized.model.graph]


def rescales(quantized):
    return [site.name for site in quantized.sites.sites if site.rule.role == "rescale"]


@pytest.mark.parametrize(
    "body",
    [
        "t = Conv (x, w) u = Mul (t, half) y = Conv (u, w)",
        "t = Conv (x, w) u = Mul (two, t) y = Conv (u, w)",
        "t = Conv (x, w) u = Div (t, four) y = Conv (u, w)",
        "t = Conv (x, w) r = Relu (t) u = Mul (r, one_half) y = Conv (u, w)",
        # twice, and read by others in between
        "t = Conv (x, w) s = Mul (t, half) u = Div (s, four) a = Add (s, t) b = Add (u, a) "
        "y = Conv (b, w)",
        "t = Conv (x, w) u = Mul (t, half) a = Concat <axis = 2> (u, t) y = Conv (a, w)",
        "t = Conv (x, w) u = Mul (t, half) a = Transpose <perm = [0, 1, 3, 2]> (u) y = Conv (a, w)",
        # of what is in float, read by sites alone
        "u = Mul (x, half) a = Conv (u, w) y = Conv (a, w)",
        "a = Abs (x) u = Div (a, two) s = Mul (u, half) c = Conv (s, w) y = Conv (c, w)",
    ],
)  # fmt: skip
def test_the_codes_stay_and_the_scale_is_multiplied(body):
    quantized = quantize(model(body))
    assert rescales(quantized)
    assert not {"Mul", "Div"} & set(operators(quantized))
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert "QLinearMul" not in coverage.integer
    feed = random_feed(quantized.source)
    [wanted] = simulate(quantized, feed)
    for level in ("disabled", "all"):
        np.testing.assert_array_equal(run(quantized.model, feed, level)[0], wanted, err_msg=level)
    check(quantized.model)


def test_float_readers_of_the_product_of_codes_read_it_dequantized():
    body = "t = Conv (x, w) u = Mul (t, half) y = Conv (u, w) z = Abs (u)"
    quantized = quantize(
        model(body, "float[N, C, H, W] y, float[N, C, H, W] z, float[N, C, H, W] u")
    )
    feed = random_feed(quantized.source)
    for level in ("disabled", "all"):
        for found, wanted in zip(
            run(quantized.model, feed, level), simulate(quantized, feed), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)
    assert [v.name for v in quantized.model.graph.outputs] == ["y", "z", "u"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("t = Conv (x, w) u = Div (t, minus) y = Conv (u, w)", "Div:u"),
        ("t = Conv (x, w) u = Div (two, t) y = Conv (u, w)", "Div:u"),
        ("t = Conv (x, w) u = Div (t, third) y = Abs (u) z = Conv (t, w)", "Div:u"),
        # somebody else wants the exact value
        ("u = Div (x, half) y = Conv (u, w) z = Abs (u)", "Div:u"),
        ("u = Div (x, half) t = Abs (u) y = Conv (t, w)", "Div:u"),
    ],
)
def test_what_is_no_rescale_stays_in_float(body, why):
    outputs = "float[N, C, H, W] y" + (", float[N, C, H, W] z" if "z =" in body else "")
    quantized = quantize(model(body, outputs), settings=ORDINARY)
    assert why in quantized.sites.why_float
    assert "Div" in operators(quantized)


@pytest.mark.parametrize("operand", ["minus", "none"])
def test_other_constants_are_multiplied_by_a_kernel(operand):
    body = f"t = Conv (x, w) r = Relu (t) u = Mul (r, {operand}) y = Conv (u, w)"
    quantized = quantize(model(body), settings=ORDINARY)
    assert rescales(quantized) == []
    assert quantized.coverage().integer["QLinearMul"] == 1


def test_a_constant_that_adds_a_dimension_is_none():
    body = "t = Conv (x, w) u = Mul (wide, t) s = Squeeze (u) y = Abs (s)"
    quantized = quantize(model(body, "float[C, H, W] y"), settings=ORDINARY)
    assert "Mul:u" in quantized.sites.why_float


def test_scales_that_are_to_be_powers_of_two_stay_so():
    body = "t = Conv (x, w) r = Relu (t) u = Mul (r, third) y = Conv (u, w)"
    quantized = quantize(model(body))
    assert rescales(quantized) == []
    assert all(np.frexp(d.scale)[0] == 0.5 for d in quantized.plan.tensors.values())


@given(factor=st.floats(2.0**-10, 2.0**10, width=32))
def test_the_scale_is_multiplied_by_any_factor(factor):
    body = "t = Conv (x, w) u = Mul (t, factor) y = Conv (u, w)"
    text = model(body).replace("float minus", f"float factor = {{{factor!r}}}, float minus")
    quantized = quantize(text, settings=ORDINARY)
    before, after = (quantized.plan.tensors[name] for name in "tu")
    assert after.zero_point == before.zero_point
    # both scales are rounded to float32
    assert after.scale == pytest.approx(before.scale * np.float32(factor), rel=2.0**-23)
    assert after.lo == pytest.approx(before.lo * np.float32(factor), rel=2.0**-23)


def test_parts_of_a_concatenation_are_tied_through_their_factors():
    body = """t = Conv (x, w) r = Relu (t) u = Mul (r, third) a = Conv (u, w) s = Relu (a)
              c = Concat <axis = 1> (u, s) y = Conv (c, k)"""
    text = model(body).replace("float half", "float[4, 8, 1, 1] k, float half")
    weights = {"w": 0.7 * np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)}
    quantized = quantize(text, weights, settings=ORDINARY)
    scales = {quantized.plan.tensors[name].scale for name in "usc"}
    points = {quantized.plan.tensors[name].zero_point for name in "rusc"}
    assert len(scales) == len(points) == 1
    assert quantized.coverage().unfused == ()


def test_a_product_that_is_kept_in_float_stays_one():
    body = "t = Conv (x, w) u = Mul (t, half) y = Conv (u, w)"
    settings = Settings(keep_float=(("Mul:u", "kept"),))
    quantized = quantize(model(body), settings=settings)
    assert quantized.sites.why_float == {"Mul:u": "kept"}
    assert "Mul" in operators(quantized)
