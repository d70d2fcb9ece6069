"""HardSwish and HardSigmoid between integer operators run on codes."""

from dataclasses import replace

import numpy as np
import pytest
from support.models import random_feed
from support.nets import ORDINARY, Settings, check, normal, quantize, run

from ptq.numerics.affine import QParams
from ptq.numerics.affine import quantize as codes_of
from ptq.numerics.qtype import UINT8

DECLARED = """float[4, 4, 3, 3] w, float[4] b, float[4, 4, 1, 1] v, float[4] c, float[4, 4, 1, 1] u,
    float minus = {-1}, float twice = {2}, float hundred = {100}, float tiny = {0.01}"""


def model(body, outputs="float[N, C, H, W] y"):
    return f"g (float[1, 4, 8, 8] x) => ({outputs}) <{DECLARED}> {{ {body} }}"


SWISH = "t = Conv <pads = [1, 1, 1, 1]> (x, w, b) s = HardSwish (t) y = Conv (s, v)"
ALONE = (
    "t = Conv <pads = [1, 1, 1, 1]> (x, w, b) s = HardSigmoid <alpha = 0.25> (t) y = Conv (s, v)"
)
#: The input of the gate has another reader, so that no bias can take its shift.
GATE = """t = Conv <pads = [1, 1, 1, 1]> (x, w, b) g = HardSigmoid <alpha = 0.25, beta = {beta}> (t)
          s = Mul (t, g) y = Conv (s, v)"""


def weights(spread):
    """Weights of a convolution whose results have about this spread."""
    return {"w": normal((4, 4, 3, 3), 1, spread / 12), "b": normal((4,), 2, spread / 4)}


def within_steps(quantized, steps):
    """What is run agrees with the float model to that many steps of the output."""
    feed = random_feed(quantized.source)
    [step] = quantized.steps()
    wanted = run(quantized.source, feed)[0]
    plain, fused = (run(quantized.model, feed, level)[0] for level in ("disabled", "all"))
    assert np.abs(plain - wanted).max() <= steps * step
    # kernels may round ties and products another way than the floats between the conversions
    assert np.abs(plain - fused).max() <= 1.001 * step
    check(quantized.model)


def check_integer(quantized, **expected):
    coverage = quantized.coverage()
    assert coverage.unfused == ()
    assert not coverage.floating
    assert quantized.sites.why_float == {}
    for op_type, count in expected.items():
        assert coverage.integer[op_type] == count, op_type


@pytest.mark.parametrize("spread", [0.5, 4, 30])
@pytest.mark.parametrize("settings", [ORDINARY, replace(ORDINARY, symmetric=True)])
def test_a_hardswish_becomes_codes_times_codes(spread, settings):
    quantized = quantize(model(SWISH), weights(spread), settings=settings)
    check_integer(quantized, QLinearMul=1, QLinearConv=2)
    # its own rounding, and that of its input, times the largest gain of the last convolution
    within_steps(quantized, 8)


def test_the_gate_has_the_codes_of_what_it_gates_where_three_is_a_code():
    quantized = quantize(model(SWISH), weights(8), settings=ORDINARY)
    given, gate = quantized.plan.tensors["t"], quantized.plan.tensors["s/gate"]
    assert gate.observed == given.observed == "t"
    three = 3 / given.scale
    assert three == pytest.approx(round(three), abs=1e-4)
    assert given.zero_point - gate.zero_point == round(three)
    assert gate.scale == pytest.approx(given.scale / 6, rel=1e-6)
    check_integer(quantized, QLinearAdd=0, Clip=1)


def test_the_gate_of_a_narrow_range_is_a_sum():
    # a grid that holds -3 as well would waste most of its codes
    quantized = quantize(model(SWISH), weights(0.3), settings=ORDINARY)
    gate = quantized.plan.tensors["s/gate"]
    assert (gate.observed, gate.lo, gate.hi, gate.zero_point) == ("s/gate", 0, 1, 0)
    check_integer(quantized, QLinearAdd=1, Clip=0)


@pytest.mark.parametrize("spread", [0.3, 8])
def test_what_a_hardswish_makes_of_every_code(spread):
    """Against numpy, code by code: the input runs through all 256 of them."""
    quantized = quantize(model(SWISH, "float[N, C, H, W] y, float[N, C, H, W] s"), weights(spread),
                         settings=ORDINARY)  # fmt: skip
    tensors = quantized.plan.tensors
    [mul] = [n for n in quantized.model.graph if n.op_type == "Mul"]
    feed = random_feed(quantized.source)
    names = [v.name for v in mul.inputs]
    for value in mul.inputs:
        quantized.model.graph.outputs.append(value)
    found = run(quantized.model, feed)
    by_name = dict(zip(["y", "s", *names], found, strict=True))
    t = by_name[mul.inputs[0].name]
    gate = np.clip(t.astype(np.float64) / 6 + 0.5, 0, 1)
    # to half a step of the gate: exact if its zero is a code, but for float32
    shared = tensors["s/gate"].observed == "t"
    tolerance = 1e-5 if shared else 0.501 * tensors["s/gate"].scale
    assert np.abs(by_name[mul.inputs[1].name] - gate).max() <= tolerance
    product = t.astype(np.float64) * by_name[mul.inputs[1].name]
    decision = tensors["s"]
    params = QParams(np.float32(decision.scale), np.uint8(decision.zero_point), UINT8)
    codes = codes_of(product.astype(np.float32), params).astype(int)
    given = np.rint(by_name["s"] / decision.scale).astype(int) + decision.zero_point
    assert np.abs(given - codes).max() <= 1


def test_a_hardsigmoid_is_absorbed_as_a_bias_and_a_scale():
    quantized = quantize(model(ALONE), weights(4), settings=ORDINARY)
    [site] = [s for s in quantized.sites.sites if s.absorbed is not None]
    assert site.absorbed.op_type == "HardSigmoid"
    check_integer(quantized, QLinearConv=2, QLinearAdd=0, Clip=0)
    within_steps(quantized, 6)


def test_a_hardsigmoid_behind_a_convolution_without_bias_is_a_sum_or_codes():
    body = ALONE.replace("(x, w, b)", "(x, w)")
    quantized = quantize(model(body), weights(8), settings=ORDINARY)
    assert all(s.absorbed is None for s in quantized.sites.sites)
    check_integer(quantized, QLinearConv=2)
    within_steps(quantized, 6)


@pytest.mark.parametrize("beta", [0.5, 0.2, 0.0, -0.25, 1.5])
@pytest.mark.parametrize("spread", [2, 8])
def test_any_hardsigmoid(beta, spread):
    quantized = quantize(model(GATE.format(beta=beta)), weights(spread), settings=ORDINARY)
    check_integer(quantized, QLinearMul=1, QLinearConv=2)
    within_steps(quantized, 8)


@pytest.mark.parametrize("alpha", [0.0, -0.2])
def test_a_slope_that_is_not_positive_stays_in_float(alpha):
    body = f"t = Conv (x, v, c) s = HardSigmoid <alpha = {alpha}> (t) y = Conv (s, u)"
    quantized = quantize(model(body), settings=ORDINARY)
    assert "HardSigmoid:s" in quantized.sites.why_float


def test_scales_that_are_powers_of_two_know_no_sixth():
    quantized = quantize(model(SWISH))
    assert quantized.sites.why_float == {"HardSwish:s": "its slope cannot become part of the scale"}
    assert [n.op_type for n in quantized.model.graph].count("HardSwish") == 1


def test_a_gate_that_is_kept_in_float_is_one_operator():
    settings = replace(ORDINARY, keep_float=(("HardSwish:s", "kept"), ("HardSigmoid:s", "kept")))
    for body in (SWISH, ALONE):
        quantized = quantize(model(body), weights(4), settings=settings)
        kept = [n.op_type for n in quantized.model.graph if n.op_type.startswith("Hard")]
        assert len(kept) == 1
        assert all(s.absorbed is None for s in quantized.sites.sites)
        within_steps(quantized, 6)


# -- a number that is added ------------------------------------------------------------------------

SUM = "t = Conv (x, v, c) r = Relu (t) {sum} y = Conv <pads = [1, 1, 1, 1]> (s, w)"


@pytest.mark.parametrize(
    "sums",
    [
        "s = Add (r, minus)",
        "s = Add (minus, r)",
        "m = Mul (r, twice) s = Add (m, minus)",
        "a = Add (r, minus) s = Relu (a)",
    ],
)
def test_a_number_that_is_added_becomes_a_zero_point(sums):
    quantized = quantize(model(SUM.format(sum=sums)), settings=ORDINARY)
    check_integer(quantized, QLinearAdd=0, QLinearConv=2, Clip=int("s = Relu" in sums))
    assert quantized.plan.tensors["s"].observed == "r"
    assert not {"Add", "Mul", "Relu"} & {n.op_type for n in quantized.model.graph}
    within_steps(quantized, 8)


@pytest.mark.parametrize(
    "sums",
    [
        "s = Add (r, hundred)",  # zero would be no code
        "s = Add (r, tiny)",  # less than a step
        "a = Mul (r, minus) s = Add (a, hundred)",
    ],
)
def test_a_number_that_no_zero_point_can_stand_for_is_added(sums):
    quantized = quantize(model(SUM.format(sum=sums)), settings=ORDINARY)
    check_integer(quantized)
    assert quantized.coverage().integer["QLinearAdd"] + sums.count("Mul") >= 1
    within_steps(quantized, 8)


def test_powers_of_two_are_added_by_a_kernel():
    quantized = quantize(model(SUM.format(sum="s = Add (r, minus)")), settings=Settings())
    assert quantized.coverage().integer["QLinearAdd"] == 1
