"""Padding, and reading and writing elements by their place, against differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import Differentiated, check_whole_gradients, whole_numbers

RNG = np.random.default_rng(17)
X = whole_numbers(RNG, 3, 4)


@settings(max_examples=20)
@given(
    mode=st.sampled_from(["constant", "reflect", "edge", "wrap"]),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_padding(mode: str, pads: list[int]) -> None:
    check_whole_gradients(lambda t, x: t.op("Pad", x, pads, mode=mode), {"x": X})


@pytest.mark.parametrize("pads", [[-1, 1, 0, 1], [-1, -1, -1, 0]])
def test_cropping(pads: list[int]) -> None:
    check_whole_gradients(lambda t, x: t.op("Pad", x, pads, 2.0), {"x": X})


def test_padding_of_one_axis() -> None:
    check_whole_gradients(lambda t, x: t.op("Pad", x, [1, 2], None, [-1]), {"x": X})


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("places", [1, -1, [0], [2, 0, 2], [[1, -1], [0, 1]]])
def test_gather(axis: int, places: int | list[int]) -> None:
    chosen = np.asarray(places)
    check_whole_gradients(lambda t, x: t.op("Gather", x, chosen, axis=axis), {"x": X})


def test_gather_elements() -> None:
    places = np.asarray([[0, 2], [1, 1]])
    check_whole_gradients(lambda t, x: t.op("GatherElements", x, places, axis=1), {"x": X})


def test_gather_nd() -> None:
    places = np.asarray([[0, 2], [1, 1], [0, 2]])
    check_whole_gradients(lambda t, x: t.op("GatherND", x, places), {"x": X})


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_elements(reduction: str) -> None:
    places = np.asarray([[0, 2], [1, 0]])
    check_whole_gradients(
        lambda t, x, u: t.op("ScatterElements", x, places, u, axis=1, reduction=reduction),
        {"x": X, "u": whole_numbers(RNG, 2, 2)},
    )


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_nd(reduction: str) -> None:
    places = np.asarray([[2], [0]])
    check_whole_gradients(
        lambda t, x, u: t.op("ScatterND", x, places, u, reduction=reduction),
        {"x": X, "u": whole_numbers(RNG, 2, 4)},
    )


def test_a_product_of_what_is_written_is_refused() -> None:
    places = np.asarray([[0, 2]])
    found = Differentiated(
        lambda t, x: t.op("ScatterElements", x, places, np.ones((1, 2)), axis=1, reduction="mul"),
        {"x": X},
    )
    assert "mul" in found.frozen[0].reason
