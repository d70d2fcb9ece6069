"""The table of a comparison: what comes first, and what it proposes."""

import math

import msgspec
import pytest

from ptq.report.comparison import (
    Comparison,
    LayerError,
    comparison_text,
    proposed,
    ranked,
)
from ptq.report.decibels import NO_SIGNAL_DB


def layer(name, isolated=40.0, accumulated=30.0, **fields):
    given = {
        "tensor": name,
        "node": name,
        "op_type": "Conv",
        "quantized": True,
        "sqnr_db": accumulated,
        "cosine": 0.999,
        "max_abs": 0.1,
        "mean_shift": 0.0,
        "rms": 1.0,
        "isolated_sqnr_db": isolated,
        "isolated_cosine": 0.9999,
        "at_fault": (name,),
    }
    return LayerError(**{**given, **fields})


def comparison(*layers, isolated=True, **fields):
    return Comparison(
        reference="f", quantized="q", samples=8, isolated=isolated, layers=layers, **fields
    )


LAYERS = (
    layer("a", 40.0, 40.0, clip_share=0.0),
    layer("b", 20.0, 30.0, clip_share=0.01, mean_shift=-0.1),
    layer("c", 30.0, 10.0, clip_share=0.2, mean_shift=0.5, rms=100.0),
    layer("d", None, None),
)


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("isolated", "bcad"),
        ("accumulated", "cbad"),
        ("clip", "cbad"),
        ("shift", "bcad"),
        ("order", "abcd"),
    ],
)
def test_the_worst_comes_first(by, order):
    assert "".join(found.tensor for found in ranked(comparison(*LAYERS), by)) == order


def test_values_that_are_not_finite_are_worst_whatever_is_asked_for():
    found = comparison(*LAYERS, layer("e", nonfinite=2))
    for by in ("isolated", "accumulated", "clip", "shift"):
        assert ranked(found, by)[0].tensor == "e"
    assert "e  (2 values NaN or infinite)" in comparison_text(found)


def test_without_isolated_errors_accumulated_ones_decide():
    found = comparison(*LAYERS, isolated=False)
    assert ranked(found)[0].tensor == "c"
    assert proposed(found) == ("c", "b", "a")
    assert "isolated" not in comparison_text(found)


def test_the_text_says_what_to_do_next_with_names_as_the_shell_and_globs_take_them():
    found = comparison(layer("/b lock[1]/Conv"), layer("plain", 50.0), layer("same", 200.0))
    last = comparison_text(found).splitlines()[-1]
    assert last.endswith("--exclude '/b lock[[]1]/Conv' --exclude plain")


def test_nothing_is_proposed_where_nothing_is_lost():
    found = comparison(layer("a", None, None), layer("b", 141.0, 139.0))
    assert proposed(found) == ()
    assert "--exclude" not in comparison_text(found)


def test_the_text_counts_what_is_matched_and_flags_outputs():
    found = comparison(*LAYERS, layer("y", 35.0, output=True), unmatched=("u", "v"))
    text = comparison_text(found, top=2)
    assert "5 of 7 tensors of the float model are in the quantized one, 5 as integers" in text
    assert "3 more layers; --top 0 shows all" in text
    assert "y  (output)" in comparison_text(found, top=0)
    assert "more layers" not in comparison_text(found, top=0)


def test_equal_tensors_and_tensors_without_signal_are_said_to_be_so():
    lines = comparison_text(comparison(LAYERS[3], layer("n", NO_SIGNAL_DB))).splitlines()
    assert "no signal" in lines[1]
    assert "equal" in lines[2]


def test_a_shift_is_relative_to_the_size_of_the_tensor():
    assert LAYERS[2].relative_shift == 0.005
    assert layer("z", mean_shift=-1.0, rms=0.0).relative_shift == -math.inf
    assert layer("z", rms=0.0).relative_shift == 0.0


def test_json_holds_every_field():
    found = comparison(*LAYERS, unmatched=("u",), notices=("n",), data="d")
    assert msgspec.json.decode(found.to_json(), type=Comparison) == found
