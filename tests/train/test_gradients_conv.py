"""Convolutions against differences in whole numbers, and one way to a gradient against another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.gradients import check_whole_gradients, whole_numbers

RNG = np.random.default_rng(11)


@settings(max_examples=60)
@given(data=st.data())
def test_convolution(data: st.DataObject) -> None:
    rank = data.draw(st.sampled_from([1, 2, 2, 3]))
    form = _form(data, rank)
    group, inner, outer = data.draw(
        st.sampled_from([(1, 1, 2), (1, 2, 1), (2, 1, 1), (2, 2, 1), (3, 1, 1), (2, 1, 2)])
    )
    size = data.draw(st.lists(st.integers(2, 4), min_size=rank, max_size=rank))
    pads = np.reshape(form["pads"], (2, rank)).sum(0)
    extent = np.multiply(form["dilations"], np.subtract(form["kernel_shape"], 1)) + 1
    assume(np.all(size + pads >= extent))
    feed = {
        "x": whole_numbers(RNG, data.draw(st.integers(1, 2)), group * inner, *size),
        "w": whole_numbers(RNG, group * outer, inner, *form["kernel_shape"]),
        "b": whole_numbers(RNG, group * outer),
    }
    check_whole_gradients(lambda t, *v: t.op("Conv", *v, group=group, **form), feed)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_padded_by_itself(auto_pad: str, stride: int) -> None:
    feed = {"x": whole_numbers(RNG, 1, 1, 5, 4), "w": whole_numbers(RNG, 1, 1, 2, 3)}
    form = {"auto_pad": auto_pad, "strides": [stride, stride]}
    check_whole_gradients(lambda t, *v: t.op("Conv", *v, **form), feed)


def _form(data: st.DataObject, rank: int) -> dict[str, Any]:
    def several(least: int, most: int, count: int = rank) -> list[int]:
        return data.draw(st.lists(st.integers(least, most), min_size=count, max_size=count))

    return {
        "kernel_shape": several(1, 3),
        "strides": several(1, 2),
        "dilations": several(1, 2),
        "pads": several(0, 2, 2 * rank),
    }
