"""Pooling against central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.gradients import Differentiated, check_gradients

RNG = np.random.default_rng(7)

#: Attributes, and the axes of the image.
FORMS = [
    ({"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}, (5, 4)),
    ({"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, (5, 4)),
    ({"kernel_shape": [2, 2], "dilations": [2, 1]}, (5, 3)),
    ({"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (4, 5)),
    ({"kernel_shape": [1, 2, 2], "strides": [1, 2, 1]}, (2, 4, 3)),
]


@pytest.mark.parametrize(("attributes", "size"), FORMS)
def test_max_pool(attributes: dict[str, Any], size: tuple[int, ...]) -> None:
    x = RNG.permutation(np.arange(2.0 * 2 * np.prod(size))).reshape(2, 2, *size)
    check_gradients(lambda t, v: t.op("MaxPool", v, **attributes), {"x": x})


def test_max_pool_of_lines() -> None:
    x = RNG.permutation(np.arange(20.0)).reshape(2, 2, 5)
    # the indices that onnx.reference gives for lines are not those of the standard
    found = Differentiated(lambda t, v: t.op("MaxPool", v, kernel_shape=[2]), {"x": x}, whole=True)
    np.testing.assert_array_equal(found.gradient("x"), found.numerical("x", step=0.25))


@pytest.mark.parametrize(("attributes", "size"), FORMS)
@pytest.mark.parametrize("counted", [0, 1])
def test_average_pool(attributes: dict[str, Any], size: tuple[int, ...], counted: int) -> None:
    x = RNG.normal(size=(1, 2, *size))
    check_gradients(
        lambda t, v: t.op("AveragePool", v, count_include_pad=counted, **attributes), {"x": x}
    )


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
def test_pooling_of_whole_images(op_type: str) -> None:
    check_gradients(lambda t, v: t.op(op_type, v), {"x": RNG.normal(size=(2, 3, 2, 2))})


@pytest.mark.parametrize(
    ("op_type", "attributes"), [("MaxPool", {"kernel_shape": [2, 2]}), ("GlobalMaxPool", {})]
)
def test_of_equal_elements_the_first_gets_the_gradient(
    op_type: str, attributes: dict[str, Any]
) -> None:
    x = np.ones((1, 1, 2, 2))
    found = Differentiated(lambda t, v: t.op(op_type, v, **attributes), {"x": x})
    assert np.flatnonzero(found.gradient("x")).tolist() == [0]
