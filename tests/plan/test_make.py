"""From statistics to decisions: ranges, shared scales, and what a search has fixed."""

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ptq.calib import Range, parse_method
from ptq.errors import CalibrationError
from ptq.numerics.affine import fake_quantize, qparams_from_range
from ptq.numerics.qtype import INT8, UINT8, QType
from ptq.plan.make import RangeChoice, decide
from ptq.plan.request import Request
from ptq.stats.base import TensorStats

MINMAX = RangeChoice(parse_method("minmax"), UINT8, symmetric=False)
SYMMETRIC = RangeChoice(parse_method("minmax"), UINT8, symmetric=True)
QCODE = RangeChoice(parse_method("qcode"), UINT8, symmetric=True)


def stats(lo, hi):
    """Statistics of values evenly spread over a range."""
    return TensorStats.of(np.linspace(lo, hi, 1001, dtype=np.float32))


def requested(**ends):
    return [Request(name, observed=name) for name in ends], {n: stats(*e) for n, e in ends.items()}


@pytest.mark.parametrize("qtype", [UINT8, INT8, QType.parse("uint16")])
@pytest.mark.parametrize("symmetric", [True, False])
@given(lo=st.floats(-50, 0), hi=st.floats(0.01, 50))
def test_an_observed_tensor_gets_the_range_of_the_solver(qtype, symmetric, lo, hi):
    asked, observed = requested(a=(lo, hi))
    found = decide(asked, observed, RangeChoice(parse_method("minmax"), qtype, symmetric))["a"]
    low, high = np.float32(lo), np.float32(hi)
    params = qparams_from_range(low, high, qtype, symmetric=symmetric)
    assert (found.lo, found.hi) == (low, high)
    assert (found.scale, found.zero_point) == (params.scale, params.zero_point)
    assert (found.qtype, found.observed, found.clip_share) == (qtype.name, "a", 0)


def test_scales_are_numbers_of_float32():
    asked, observed = requested(a=(-0.1, 0.7))
    found = decide(asked, observed, MINMAX)["a"]
    assert type(found.scale) is float
    assert np.float32(found.scale) == found.scale


def test_the_clip_share_is_that_of_the_observed_values():
    asked, observed = requested(a=(-1, 1))
    found = decide(asked, observed, MINMAX, fixed={"a": Range(-0.5, 0.5)})["a"]
    # a bin at either end may count as inside
    assert found.clip_share == pytest.approx(0.5, abs=0.002)


def test_a_copy_has_the_decision_of_its_source_through_any_number_of_copies():
    asked, observed = requested(a=(-1, 3))
    asked += [Request("b", copies="a"), Request("c", copies="b")]
    found = decide(asked, observed, MINMAX)
    assert found["a"] == found["b"] == found["c"]
    assert found["c"].observed == "a"


@pytest.mark.parametrize("choice", [MINMAX, SYMMETRIC, QCODE])
@given(value=st.floats(-1e6, 1e6, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6))
def test_a_constant_is_a_code_or_near_one(choice, value):
    found = decide([Request("c", constant=(value, value))], {}, choice)["c"]
    code = np.clip(np.rint(value / found.scale) + found.zero_point, 0, 255)
    back = (code - found.zero_point) * np.float32(found.scale)
    # exact but for the rounding of the scale; a power of two leaves half of one of 64 steps
    close = 2.0**-7 if choice is QCODE else 2.0**-22
    assert back == pytest.approx(value, rel=close)


def test_the_constant_zero_is_exact():
    for choice in (MINMAX, SYMMETRIC, QCODE):
        found = decide([Request("c", constant=(0.0, 0.0))], {}, choice)["c"]
        assert found.scale > 0


# -- concatenations ------------------------------------------------------------------------------


def joined(choice=MINMAX, **ends):
    asked, observed = requested(**ends)
    return decide([*asked, Request("joined", joins=tuple(ends))], observed, choice)


def test_parts_of_like_ranges_are_tied_to_their_union():
    found = joined(a=(-1, 3), b=(-2, 2))
    assert len({(d.scale, d.zero_point, d.lo, d.hi) for d in found.values()}) == 1
    assert (found["a"].lo, found["a"].hi) == (-2, 3)


def test_parts_of_unlike_ranges_keep_their_own():
    found = joined(a=(-1, 3), b=(-20, 2))
    assert (found["a"].lo, found["a"].hi) == (-1, 3)
    assert (found["b"].lo, found["b"].hi) == (-20, 2)
    assert (found["joined"].lo, found["joined"].hi) == (-20, 3)


@given(factor=st.floats(1, 4).filter(lambda f: abs(f - 2) > 1e-3))
def test_no_part_loses_more_than_a_bit(factor):
    found = joined(a=(0, 1), b=(0, factor))
    tied = found["a"].scale == found["joined"].scale
    assert tied == (factor <= 2)
    assert found["joined"].scale == pytest.approx(max(found["b"].scale, found["a"].scale))


@given(ends=st.lists(st.tuples(st.floats(-9, 0), st.floats(0.1, 9)), min_size=2, max_size=4))
def test_a_concatenation_covers_all_of_its_parts(ends):
    found = joined(**{f"p{i}": e for i, e in enumerate(ends)})
    whole = found.pop("joined")
    for part in found.values():
        assert whole.lo <= part.lo <= part.hi <= whole.hi


def test_tying_moves_the_copies_of_a_part_too():
    asked, observed = requested(a=(-1, 3), b=(-2, 2))
    asked += [Request("c", copies="a"), Request("joined", joins=("c", "b"))]
    found = decide(asked, observed, MINMAX)
    assert found["a"].scale == found["c"].scale == found["joined"].scale


def test_concatenations_of_concatenations_cover_everything():
    asked, observed = requested(a=(-1, 3), b=(-2, 2), c=(-2.5, 4))
    asked += [Request("ab", joins=("a", "b")), Request("abc", joins=("ab", "c"))]
    found = decide(asked, observed, MINMAX)
    assert (found["abc"].lo, found["abc"].hi) == (-2.5, 4)


def test_power_of_two_ranges_stay_powers_of_two_when_joined():
    found = joined(QCODE, a=(-1, 3), b=(-2, 1), c=(-30, 2))
    for decision in found.values():
        assert np.frexp(decision.scale)[0] == 0.5
        assert decision.zero_point == 128


# -- what a search has fixed ---------------------------------------------------------------------


def test_fixed_ranges_replace_the_solver_for_observed_constant_and_joined_tensors():
    asked, observed = requested(a=(-1, 3), b=(-2, 2))
    asked += [Request("half", constant=(0.5, 0.5)), Request("joined", joins=("a", "b"))]
    fixed = {"a": Range(-8, 7.9375), "b": Range(-4, 3.96875), "half": Range(-1, 0.9921875),
             "joined": Range(-2, 1.984375)}  # fmt: skip
    found = decide(asked, observed, QCODE, fixed=fixed)
    assert {n: (d.lo, d.hi) for n, d in found.items()} == {
        n: (r.lo, r.hi) for n, r in fixed.items()
    }


def test_a_copy_follows_the_fixed_range_of_its_source():
    asked, observed = requested(a=(-1, 3))
    asked.append(Request("b", copies="a"))
    found = decide(asked, observed, QCODE, fixed={"a": Range(-8, 7.9375)})
    assert found["b"].scale == found["a"].scale == 2**-4


# -- errors --------------------------------------------------------------------------------------


def test_a_tensor_without_statistics_is_an_error():
    with pytest.raises(CalibrationError, match="'a' was not observed; calibrate this model again"):
        decide([Request("a", observed="a")], {}, MINMAX)


def test_an_error_of_a_solver_names_the_tensor():
    with pytest.raises(CalibrationError, match="tensor 'a': "):
        decide([Request("a", observed="a")], {"a": TensorStats.of(np.zeros(0, np.float32))}, MINMAX)


def test_a_fixed_range_that_is_no_power_of_two_is_an_error_for_power_of_two_scales():
    asked, observed = requested(a=(-1, 3))
    with pytest.raises(CalibrationError, match="not minus a power of two"):
        decide(asked, observed, QCODE, fixed={"a": Range(-3, 3)})


def test_decisions_do_not_depend_on_the_order_of_unrelated_requests():
    asked, observed = requested(a=(-1, 3), b=(-2, 2), c=(0, 9))
    assert decide(asked, observed, MINMAX) == decide(asked[::-1], observed, MINMAX)


def test_decisions_are_plain_data():
    found = joined(a=(-1, 3), b=(-2, 2))
    assert msgspec.convert(msgspec.to_builtins(found), dict[str, type(found["a"])]) == found


# -- multiples and sums ----------------------------------------------------------------------------

FACTORS = st.floats(2.0**-8, 2.0**8)


@pytest.mark.parametrize("choice", [MINMAX, SYMMETRIC])
@given(lo=st.floats(-50, 0), hi=st.floats(0.01, 50), factor=FACTORS)
def test_a_multiple_has_the_codes_of_its_source(choice, lo, hi, factor):
    asked, observed = requested(a=(lo, hi))
    asked.append(Request("b", copies="a", factor=factor))
    found = decide(asked, observed, choice)
    a, b = found["a"], found["b"]
    assert (b.zero_point, b.observed) == (a.zero_point, "a")
    # both are rounded to float32
    assert b.scale == pytest.approx(a.scale * factor, rel=2.0**-22)
    assert (b.lo, b.hi) == pytest.approx((a.lo * factor, a.hi * factor))


@given(factor=FACTORS, part=st.floats(1, 1.9))
def test_parts_are_tied_through_their_factors(factor, part):
    asked, observed = requested(a=(-1, 1), b=(-part, part))
    asked += [Request("c", copies="a", factor=factor), Request("d", copies="b", factor=factor)]
    asked.append(Request("joined", joins=("c", "d")))
    found = decide(asked, observed, MINMAX)
    assert len({(found[n].scale, found[n].zero_point) for n in ("c", "d", "joined")}) == 1


def shifted(shift, choice=MINMAX, factor=1.0, **ends):
    asked, observed = requested(a=ends["a"])
    sum_of = stats(*(e * factor + shift for e in ends["a"]))
    copy = Request("b", observed="b", copies="a", factor=factor, shift=shift)
    return decide([*asked, copy], {**observed, "b": sum_of}, choice)


@pytest.mark.parametrize("choice", [MINMAX, SYMMETRIC])
@given(lo=st.floats(-9, -1), hi=st.floats(1, 9), shift=st.floats(-4, 4), factor=FACTORS)
@example(lo=-1.5, hi=1.0, shift=1.625, factor=1.0)  # zero is the very end, but for rounding
def test_a_sum_is_another_zero_point_or_has_a_scale_of_its_own(choice, lo, hi, shift, factor):
    found = shifted(shift * factor, choice, factor, a=(lo, hi))
    a, b = found["a"], found["b"]
    if b.observed == "b":
        assert a == shifted(0.0, choice, a=(lo, hi))["a"]
        return
    assert 0 <= b.zero_point <= 255
    assert b.scale == pytest.approx(a.scale * factor, rel=1e-6)
    # every code stands for the sum of what it stood for, to the rounding of the scales
    codes = np.arange(256)
    given, made = ((codes - d.zero_point) * d.scale for d in (a, b))
    np.testing.assert_allclose(made, given * factor + shift * factor, rtol=0, atol=1e-4 * b.scale)
    # nothing that was covered no longer is, and the step is at most a quarter larger
    assert a.lo <= lo * (1 - 1e-6)
    assert a.hi >= hi * (1 - 1e-6)
    assert a.scale <= 1.25 * shifted(0.0, choice, a=(lo, hi))["a"].scale * (1 + 1e-6)


def test_a_sum_whose_zero_lies_far_outside_has_a_scale_of_its_own():
    found = shifted(5.0, a=(-1, 3))
    assert found["b"].observed == "b"
    assert (found["a"].lo, found["a"].hi) == (-1, 3)


def test_a_sum_of_less_than_a_step_has_a_scale_of_its_own():
    assert shifted(1e-4, a=(-1, 3))["b"].observed == "b"


def test_powers_of_two_are_not_moved():
    found = shifted(0.3, QCODE, a=(-1, 3))
    assert found["b"].observed == "b"


@pytest.mark.parametrize("through", ["a", "copy"])
def test_what_a_concatenation_settles_is_not_moved(through):
    asked, observed = requested(a=(-1, 3), c=(-1, 2))
    asked += [Request("copy", copies="a"), Request("joined", joins=("c", through))]
    asked.append(Request("b", observed="b", copies="a", shift=0.3))
    # nor what is copied from one
    asked.append(Request("d", observed="b", copies="joined", shift=0.3))
    found = decide(asked, {**observed, "b": stats(-0.7, 3.3)}, MINMAX)
    assert (found["b"].observed, found["d"].observed) == ("b", "d")
    assert found["a"].scale == found["joined"].scale


def test_two_sums_of_one_tensor_agree_or_the_second_has_a_scale_of_its_own():
    asked, observed = requested(a=(-1, 3))
    asked += [
        Request("b", observed="b", copies="a", shift=0.5),
        Request("c", constant=(0.0, 1.0), copies="a", factor=2.0, shift=1.0),
        Request("d", observed="b", copies="a", shift=0.51),
    ]
    found = decide(asked, {**observed, "b": stats(-0.5, 3.5)}, MINMAX)
    assert [found[n].observed for n in "bcd"] == ["a", "a", "d"]
    assert found["b"].zero_point == found["c"].zero_point


def test_a_range_that_a_search_has_fixed_is_not_moved():
    asked, observed = requested(a=(-1, 3))
    asked.append(Request("b", observed="b", copies="a", shift=0.3))
    fixed = {"a": Range(-1, 3), "b": Range(-0.7, 3.3)}
    assert decide(asked, observed, MINMAX, fixed=fixed)["b"].observed == "b"


# -- tensors with a choice of their own ------------------------------------------------------------


def test_a_choice_of_its_own_changes_one_tensor_and_no_other():
    asked, observed = requested(a=(-1, 3), b=(-20, 2), c=(-5, 5))
    general = decide(asked, observed, MINMAX)
    found = decide(asked, observed, MINMAX, others={"b": QCODE})
    assert found == {**general, "b": decide(asked, observed, QCODE)["b"]}


def test_a_copy_has_the_choice_of_its_source():
    asked, observed = requested(a=(-1, 3))
    asked.append(Request("b", copies="a"))
    found = decide(asked, observed, MINMAX, others={"b": QCODE})
    assert found == decide(asked, observed, MINMAX)
    found = decide(asked, observed, MINMAX, others={"a": QCODE})
    assert found == decide(asked, observed, QCODE)


@pytest.mark.parametrize("power_of_two", [("a",), ("joined",), ("a", "joined"), ("a", "b")])
def test_scales_of_two_kinds_are_not_tied(power_of_two):
    asked, observed = requested(a=(-1, 3), b=(-2, 2))
    alone = {
        name: decide(asked, observed, QCODE if name in power_of_two else MINMAX)[name]
        for name in ("a", "b")
    }
    asked.append(Request("joined", joins=("a", "b")))
    found = decide(asked, observed, MINMAX, others=dict.fromkeys(power_of_two, QCODE))
    whole = found.pop("joined")
    assert found == alone
    assert whole.lo <= min(d.lo for d in alone.values())
    assert whole.hi >= max(d.hi for d in alone.values())
    if "joined" in power_of_two:
        assert np.frexp(whole.scale)[0] == 0.5


def test_parts_that_all_have_another_choice_are_tied_as_ever():
    found = joined(a=(-1, 3), b=(-2, 2))
    asked, observed = requested(a=(-1, 3), b=(-2, 2))
    asked.append(Request("joined", joins=("a", "b")))
    others = dict.fromkeys(("a", "b", "joined"), MINMAX)
    assert decide(asked, observed, QCODE, others=others) == found


def test_some_tensors_have_a_grid_of_other_bits():
    asked, observed = requested(a=(-1, 3), b=(-1, 3))
    asked.append(Request("copy", copies="a"))
    found = decide(asked, observed, MINMAX, bits={"a": 4, "copy": 4})
    assert [found[t].qtype for t in ("a", "copy", "b")] == ["uint4", "uint4", "uint8"]
    assert found["copy"] == found["a"]
    assert found["a"].scale == pytest.approx(4 / 15)
    assert found["b"].scale == pytest.approx(4 / 255)


def test_a_concatenation_of_other_bits_is_no_copy():
    asked, observed = requested(a=(-1, 3), b=(-1, 3))
    asked.append(Request("c", joins=("a", "b")))
    found = decide(asked, observed, MINMAX, bits={"c": 4})
    assert (found["c"].lo, found["c"].hi, found["c"].qtype) == (-1, 3, "uint4")
    assert found["a"].qtype == found["b"].qtype == "uint8"


@pytest.mark.parametrize("method", ["kl", "mse", "minmax", "percentile", "aciq", "cosine", "qcode"])
@pytest.mark.parametrize("lo", [0.0, -8.0])
def test_every_range_method_knows_the_grid_of_a_tensor(method, lo):
    values = np.clip(np.random.default_rng(0).standard_normal(4000) * 2, lo, 8).astype(np.float32)
    choice = RangeChoice(parse_method(method), UINT8, symmetric=method == "qcode")
    asked, noise = [Request("a", observed="a")], []
    for bits in (8, 4, 2):
        found = decide(asked, {"a": TensorStats.of(values)}, choice, bits={"a": bits})["a"]
        params = qparams_from_range(
            np.float32(found.lo), np.float32(found.hi), QType.parse(found.qtype), symmetric=False
        )
        assert found.qtype == f"uint{bits}"
        noise.append(float(np.mean((fake_quantize(values, params) - values) ** 2)))
    signal = float(np.mean(values**2))
    assert noise[0] < noise[1] < noise[2] < signal
    assert noise[1] < signal / 15  # 12 dB of 4 bits
