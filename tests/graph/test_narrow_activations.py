"""Activations of few bits, whose codes are clipped or looked up, and steps read as others.

With power-of-two scales everything is exact: numpy, the graph as written, the one that onnxruntime
fuses and our integer operators agree to the bit.
"""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.models import random_feed
from support.nets import ORDINARY, Settings, check, quantize, run, simulate

from ptq.graph.clip_codes import table
from ptq.graph.emit_integer import fuse_integer
from ptq.plan import Decision
from ptq.plan.replace import with_decisions

#: From ``t``, which a convolution puts out, to ``u``, which another one reads.
PATTERNS = {
    "conv": "u = Identity (t)",
    "relu": "u = Relu (t)",
    "clip": "u = Clip (t, minus, six)",
    "add, relu": "a = Conv (x, w2) s = Add (t, a) u = Relu (s)",
    "add the input": "u = Add (t, x)",
    "concatenate": "a = Conv (x, w2) c = Concat <axis = 2> (t, a) "
    "u = Conv <strides = [2, 1]> (c, w2)",
    "concatenate an array": "c = Concat <axis = 2> (ones, t) u = Conv <strides = [2, 1]> (c, w2)",
    "max pool": "r = Relu (t) u = MaxPool <kernel_shape = [2, 2]> (r)",
    "average": "u = GlobalAveragePool (t)",
    "sigmoid": "k = Sigmoid (t) u = Mul (t, k)",
    "hard sigmoid": "k = HardSigmoid <alpha = 0.25> (t) u = Mul (t, k)",
    "multiply by a scalar": "r = Relu (t) m = Mul (r, six) u = Add (m, r)",
    "pad": "u = Pad (t, margins, six)",
    "product": "p = MatMul (t, x) u = Relu (p)",
}

DECLARED = """
    float[4, 4, 3, 3] w0, float[4] b0, float[4, 4, 3, 3] w1, float[4] b1, float[4, 4, 1, 1] w2,
    float minus = {-1}, float six = {6}, float[1, 4, 8, 8] ones,
    int64[8] margins = {0, 0, 1, 1, 0, 0, 1, 1}"""

BY_PATTERN = pytest.mark.parametrize("name", PATTERNS)


def pattern(name):
    return f"""
        g (float[1, 4, 8, 8] x) => (float[N, 4, H, W] y) <{DECLARED}> {{
          t = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
          {PATTERNS[name]}
          y = Conv <pads = [1, 1, 1, 1]> (u, w1, b1)
        }}"""


def check_values(quantized):
    feed = random_feed(quantized.source, 1)
    expected = simulate(quantized, feed)[0]
    fused = quantized.model.clone()
    fuse_integer(fused)
    for model in (quantized.model, fused):
        for level in ("disabled", "all"):
            found = run(model, feed, level)[0]
            np.testing.assert_array_equal(found, expected, err_msg=level)
    check(quantized.model)


@BY_PATTERN
@pytest.mark.parametrize("bits", [4, 2])
def test_narrow_codes_compute_what_the_plan_says(name, bits):
    quantized = quantize(pattern(name), settings=Settings(activation_bits=bits))
    assert {d.qtype for d in quantized.plan.tensors.values()} == {f"uint{bits}"}
    check_values(quantized)


@BY_PATTERN
def test_narrow_codes_run_as_those_of_eight_bits_do(name):
    wide, narrow = (
        quantize(pattern(name), settings=replace(ORDINARY, activation_bits=bits)).coverage()
        for bits in (8, 4)
    )
    assert narrow.unfused == ()
    assert narrow.floating == wide.floating
    assert narrow.conversions == wide.conversions


def test_eight_bits_are_not_clipped():
    quantized = quantize(pattern("add the input"))
    assert not [n for n in quantized.model.graph if n.op_type == "Clip"]


def test_what_only_moves_narrow_codes_clips_none():
    quantized = quantize(pattern("max pool"), settings=Settings(activation_bits=4))
    clipped = [n.outputs[0].name for n in quantized.model.graph if n.op_type == "Clip"]
    assert len(clipped) == 3  # x, r and y
    assert not any(name.startswith("u") for name in clipped)


# -- steps that are read as others ---------------------------------------------------------------


def decoding(plan, tensors):
    """Return the plan with codes of tensors that stand for half as much."""
    return with_decisions(
        plan,
        {t: msgspec.structs.replace(plan.tensors[t], decode=plan.tensors[t].scale / 2)
         for t in tensors},
    )  # fmt: skip


@BY_PATTERN
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_stand_for_the_step_that_they_are_read_with(name, bits):
    settings = Settings(activation_bits=bits)
    plan = quantize(pattern(name), settings=settings).plan
    own = [t for t, d in plan.tensors.items() if d.observed == t]
    decisions = decoding(plan, own).tensors
    quantized = quantize(pattern(name), settings=settings, decisions=decisions)
    check_values(quantized)
    assert quantized.coverage().unfused == ()


def test_what_shares_codes_follows_a_decision_in_place_of_another():
    plan = quantize(pattern("max pool")).plan
    changed = decoding(plan, ["r"])
    assert changed.tensors["u"].scale == plan.tensors["r"].scale / 2
    assert changed.tensors["t" if "t" in plan.tensors else "x"] == plan.tensors["x"]
    assert decoding(changed, []) == changed
    again = with_decisions(changed, {"r": changed.tensors["r"]})
    assert again == changed
    assert with_decisions(plan, {"in float": plan.tensors["r"]}) == plan


def test_a_multiple_of_codes_follows_with_the_same_factor():
    plan = quantize(pattern("multiply by a scalar"), settings=ORDINARY).plan
    changed = decoding(plan, ["r"])
    before = plan.tensors["m"].scale / plan.tensors["r"].scale
    assert changed.tensors["m"].scale == pytest.approx(before * changed.tensors["r"].step, rel=1e-6)


# -- codes that are looked up --------------------------------------------------------------------


def looking_up(plan):
    """Return the plan with four levels in place of the grids that are not shared, zero kept.

    Those of neighbours need not be the same: all are about the zero point, which differs.
    """
    changed = {}
    for tensor, d in plan.tensors.items():
        if d.observed == tensor != "ones":  # constants are quantized beforehand
            zero = d.zero_point
            low = max(zero - 70, 0)
            levels = (low, zero, zero + 30, zero + 90) if low < zero else (zero, zero + 30)
            starts = (zero - 9, zero + 8, zero + 60) if low < zero else (zero + 8,)
            d = msgspec.structs.replace(d, levels=levels, starts=starts)
        else:
            d = msgspec.structs.replace(d, levels=(0, 1))
        changed[tensor] = d
    return changed


@BY_PATTERN
def test_codes_that_are_looked_up_compute_what_the_plan_says(name):
    quantized = quantize(pattern(name), decisions=looking_up(quantize(pattern(name)).plan))
    assert [n for n in quantized.model.graph if n.op_type == "GatherElements"]
    check_values(quantized)


@BY_PATTERN
def test_codes_that_are_looked_up_run_as_those_that_are_not(name):
    plan = quantize(pattern(name), settings=ORDINARY).plan
    wide = quantize(pattern(name), settings=ORDINARY).coverage()
    found = quantize(pattern(name), settings=ORDINARY, decisions=looking_up(plan)).coverage()
    assert found.unfused == ()
    assert found.floating == wide.floating
    assert found.conversions == wide.conversions


def test_what_shares_codes_is_not_looked_up_again():
    quantized = quantize(
        pattern("max pool"), decisions=looking_up(quantize(pattern("max pool")).plan)
    )
    found = [n.outputs[0].name for n in quantized.model.graph if n.op_type == "GatherElements"]
    assert len(found) == 3  # x, r and y
    assert not any(name.startswith("u") for name in found)


def test_negative_codes_are_looked_up_from_the_end():
    decision = Decision(
        qtype="int8", lo=-1, hi=1, scale=1 / 128, zero_point=0, clip_share=0, observed="t",
        levels=(-100, 0, 50), starts=(-10, 20),
    )  # fmt: skip
    found = table((-math.inf, 0.25), decision)
    codes = np.arange(-128, 128)
    wanted = np.where(codes < -10, -100, np.where(np.minimum(codes, 32) < 20, 0, 50))
    np.testing.assert_array_equal(found[codes], wanted)
    assert found.dtype == np.int8
