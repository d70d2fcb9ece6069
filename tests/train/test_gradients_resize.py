"""Resizing against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.gradients import Differentiated, check_gradients, check_whole_gradients, whole_numbers

RNG = np.random.default_rng(13)


@pytest.mark.parametrize("scales", [[1.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.6, 0.6], [1.0, 1.0, 1, 2]])
def test_nearest(scales: list[float]) -> None:
    scale = np.asarray(scales, np.float32)
    check_whole_gradients(
        lambda t, x: t.op("Resize", x, None, scale, mode="nearest"),
        {"x": whole_numbers(RNG, 1, 2, 4, 5)},
    )


@pytest.mark.parametrize(
    "form",
    [
        {"mode": "linear"},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "cubic", "cubic_coeff_a": -0.5},
        {"mode": "cubic", "exclude_outside": 1},
        {"mode": "linear", "antialias": 1},
    ],
)
@pytest.mark.parametrize("size", [(5, 6), (2, 3)])
def test_interpolation(form: dict[str, Any], size: tuple[int, int]) -> None:
    found = Differentiated(
        lambda t, x: t.op("Resize", x, None, None, [1, 1, *size], **form),
        {"x": whole_numbers(RNG, 1, 1, 3, 4)},
        whole=True,
    )
    # float32, some ten products of numbers below 4
    np.testing.assert_allclose(found.gradient("x"), found.numerical("x", step=1.0), atol=1e-4)


def test_named_axes() -> None:
    check_gradients(
        lambda t, x: t.op("Resize", x, None, None, [6], mode="linear", axes=[2]),
        {"x": RNG.normal(size=(1, 2, 3))},
    )


def test_what_crops_is_refused() -> None:
    def forward(t, x):  # type: ignore[no-untyped-def]
        roi = np.asarray([0, 0, 0, 0, 1, 1, 0.5, 0.5])
        mode = "tf_crop_and_resize"
        return t.op("Resize", x, roi, None, [1, 1, 2, 2], coordinate_transformation_mode=mode)

    (frozen,) = Differentiated(forward, {"x": RNG.normal(size=(1, 1, 4, 4))}).frozen
    assert "crops" in frozen.reason
