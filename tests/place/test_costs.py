"""Kernels are charged to the operators they stand for, and conversions to tensors."""

import pytest

from ptq.place.costs import Costs, Region, blocks, boundaries, charge, merged
from ptq.place.cut import Boundary
from ptq.runtime.conversions import Conversions, cost_ms
from ptq.runtime.profile import KernelTime


def kernel(op_type, ms, *names, tensors=()):
    return KernelTime(op_type, op_type, ms, frozenset(names), frozenset(tensors))


CONV = Region("conv", frozenset({"conv", "relu"}), ("x",), ("y",), dequantizes=False)
ADD = Region("add", frozenset({"add"}), ("y",), ("z",), dequantizes=False, leads=False)


def test_a_kernel_is_charged_to_the_operator_it_stands_for():
    charged, others = charge(
        [CONV, ADD], [kernel("Conv", 3.0, "conv"), kernel("Add", 1.0, "add"), kernel("R", 0.5)]
    )
    assert charged == {"conv": 3.0, "add": 1.0}
    assert others == 0.5


def test_a_merged_kernel_is_charged_to_the_one_that_leads():
    charged, _ = charge([ADD, CONV], [kernel("FusedConv", 3.0, "add", "relu", "conv")])
    assert charged == {"conv": 3.0, "add": 0.0}


def test_several_kernels_of_one_operator_add_up():
    charged, _ = charge([CONV], [kernel("QLinearConv", 2.0, "conv"), kernel("Clip", 0.25, "relu")])
    assert charged == {"conv": 2.25}


def test_a_rewritten_operator_is_known_by_what_it_makes():
    region = Region("matmul", frozenset({"matmul"}), makes=frozenset({"y"}))
    charged, _ = charge([region], [kernel("DynamicQuantizeMatMul", 2.0, "y/Mul", tensors={"y"})])
    assert charged == {"matmul": 2.0}


def test_what_shares_a_float_kernel_is_placed_together():
    relu = Region("pool", frozenset({"pool"}), ("z",), ("p",))
    kernels = [kernel("FusedConv", 3.0, "conv", "add"), kernel("Pool", 1.0, "pool")]
    one, other = merged([ADD, CONV, relu], kernels)
    assert other == relu
    assert one.name == "conv"
    assert one.members == {"conv", "relu", "add"}
    assert (set(one.reads), set(one.writes)) == ({"x", "y"}, {"y", "z"})
    assert not one.dequantizes
    costs = Costs(
        blocks([one], {"conv": 1.0}, {"conv": 2.0}), {"conv": ("conv", "add")},
        {t: Boundary(0.1, 0.1) for t in "xyz"}, frozenset("z"), 0.0,
    )  # fmt: skip
    assert costs.cut() == frozenset()
    assert set(costs.reasons(frozenset())) == {"conv", "add"}
    assert costs.regions(frozenset({"conv"})) == 2


LINES = Conversions((0.001, 1e-6), (0.002, 2e-6), (0.01, 3e-6), (0.02, 4e-6))


def test_images_pay_for_their_layout_and_inputs_only_for_that_of_their_codes():
    shapes = {"image": (1, 3, 10, 10), "inner": (1, 3, 10, 10), "row": (1, 300)}
    found = boundaries(shapes, LINES, frozenset({"image"}))
    assert found["row"] == Boundary(0.001 + 300e-6, 0.002 + 600e-6)
    assert found["image"].quantize_ms == pytest.approx(0.0013 + 0.0109)
    assert found["inner"].quantize_ms == pytest.approx(0.0013 + 0.0109 + 0.0212)


def test_no_conversion_costs_less_than_nothing():
    assert cost_ms((-1.0, 1e-9), 10) == 0.0


def test_the_cheapest_cut_keeps_in_float_what_is_faster_so_and_says_why():
    regions = [CONV, ADD]
    costs = Costs(
        blocks(regions, {"conv": 1.0, "add": 0.1}, {"conv": 2.0, "add": 0.05}),
        {"conv": ("conv",), "add": ("add",)},
        {t: Boundary(0.2, 0.2) for t in "xyz"},
        frozenset("z"),
        others_ms=5.0,
    )
    assert costs.cut() == frozenset()
    assert costs.predicted_ms(frozenset()) == pytest.approx(6.1)
    assert costs.predicted_ms(frozenset({"conv", "add"})) == pytest.approx(5 + 2.05 + 0.4)
    assert costs.reasons(frozenset()) == {
        "conv": "float is faster here: 1 ms against 2 ms",
        "add": "the conversions around it cost more than its integer kernel saves here",
    }


def test_dearer_conversions_never_make_more_boundaries():
    chain = [
        Region(f"n{i}", frozenset({f"n{i}"}), (f"t{i}",), (f"t{i + 1}",), dequantizes=False)
        for i in range(6)
    ]
    float_ms = {f"n{i}": 1.0 for i in range(6)}
    integer_ms = {f"n{i}": 0.5 if i % 2 else 1.2 for i in range(6)}
    around = {f"t{i}": Boundary(0.1, 0.1) for i in range(7)}
    parts = {r.name: (r.name,) for r in chain}
    costs = Costs(blocks(chain, float_ms, integer_ms), parts, around, frozenset({"t6"}), 0.0)

    def crossings(integer):
        sides = [f"n{i}" in integer for i in range(6)]
        return sum(a != b for a, b in zip([False, *sides], [*sides, False], strict=True))

    counts = [crossings(costs.cut(factor)) for factor in (0.5, 1.0, 4.0, 100.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 0
