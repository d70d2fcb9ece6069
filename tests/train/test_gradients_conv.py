"""Convolutions against differences in whole numbers, and one way to a gradient against another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.gradients import Differentiated, check_whole_gradients, whole_numbers

from ptq.train.variants import Variants

RNG = np.random.default_rng(11)

#: How much larger an image is than one window.
MORE = st.sampled_from([(0, 0), (1, 2), (0, 5), (7, 1)])


@settings(max_examples=40)
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


@settings(max_examples=12)
@given(data=st.data())
def test_all_ways_to_the_gradient_of_a_weight_give_the_same(data: st.DataObject) -> None:
    form = _form(data, 2)
    channels, outer, group = data.draw(st.sampled_from([(2, 3, 1), (2, 2, 2)]))
    extent = np.multiply(form["dilations"], np.subtract(form["kernel_shape"], 1)) + 1
    feed = {
        "x": whole_numbers(RNG, 2, channels, *(extent + data.draw(MORE))),
        "w": whole_numbers(RNG, outer, channels // group, *form["kernel_shape"]),
    }

    def found(choice: str) -> np.ndarray:
        class Chosen(Variants):
            def choose(self, key, ways, shapes, usual):  # type: ignore[no-untyped-def]
                names.update(ways)
                return choice or usual

        def forward(t, *v):  # type: ignore[no-untyped-def]
            return t.op("Conv", *v, group=group, **form)

        return Differentiated(forward, feed, whole=True, variants=Chosen()).gradient("w")

    names: set[str] = set()
    usual = found("")
    assert len(names) > 1
    for name in names:
        np.testing.assert_array_equal(found(name), usual)


def _form(data: st.DataObject, rank: int) -> dict[str, Any]:
    def several(least: int, most: int, count: int = rank) -> list[int]:
        return data.draw(st.lists(st.integers(least, most), min_size=count, max_size=count))

    return {
        "kernel_shape": several(1, 3),
        "strides": several(1, 2),
        "dilations": several(1, 2),
        "pads": several(0, 2, 2 * rank),
    }


@settings(max_examples=40)
@given(data=st.data())
def test_transposed_convolution(data: st.DataObject) -> None:
    rank = data.draw(st.sampled_from([1, 2, 2]))
    form = _form(data, rank)
    group, inner, outer = data.draw(st.sampled_from([(1, 2, 1), (2, 1, 1), (2, 1, 2), (1, 1, 2)]))
    form["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in form["strides"]]
    size = data.draw(st.lists(st.integers(2, 3), min_size=rank, max_size=rank))
    extent = np.multiply(form["dilations"], np.subtract(form["kernel_shape"], 1)) + 1
    whole = np.subtract(size, 1) * form["strides"] + extent + form["output_padding"]
    assume(np.all(whole > np.reshape(form["pads"], (2, rank)).sum(0)))
    feed = {
        "x": whole_numbers(RNG, data.draw(st.integers(1, 2)), group * inner, *size),
        "w": whole_numbers(RNG, group * inner, outer, *form["kernel_shape"]),
        "b": whole_numbers(RNG, group * outer),
    }
    check_whole_gradients(lambda t, *v: t.op("ConvTranspose", *v, group=group, **form), feed)
