"""Gradients of normalizations against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from support.gradients import Differentiated, check_gradients

RNG = np.random.default_rng(9)
SHAPES = [(2, 4, 3), (3, 4), (2, 4, 1, 2)]


def _feed(shape: tuple[int, ...], *others: tuple[int, ...]) -> dict[str, np.ndarray]:
    feed = {"x": RNG.normal(size=shape)}
    return feed | {f"p{i}": RNG.uniform(0.5, 1.5, o) for i, o in enumerate(others)}


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_layer_normalization(axis: int, bias: bool) -> None:
    shape = (2, 3, 4)
    feed = _feed(shape, *[shape[axis:]] * (1 + bias))
    check_gradients(
        lambda t, *x: t.op("LayerNormalization", *x, axis=axis, epsilon=0.01),
        feed,
        atol=1e-6,
    )


def test_rms_normalization() -> None:
    feed = _feed((2, 3, 4), (4,))
    check_gradients(lambda t, *x: t.op("RMSNormalization", *x), feed, opset=23, atol=1e-6)


def test_instance_normalization() -> None:
    feed = _feed((2, 4, 3, 2), (4,), (4,))
    check_gradients(lambda t, *x: t.op("InstanceNormalization", *x, epsilon=0.01), feed)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_normalization(groups: int) -> None:
    feed = _feed((2, 4, 3), (4,), (4,))
    form = {"num_groups": groups, "stash_type": 11}  # in float64 all through
    check_gradients(lambda t, *x: t.op("GroupNormalization", *x, **form), feed, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalization_by_given_statistics(shape: tuple[int, ...]) -> None:
    feed = _feed(shape, *[(4,)] * 4)
    check_gradients(lambda t, *x: t.op("BatchNormalization", *x), feed)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalization_by_statistics_of_the_batch(shape: tuple[int, ...]) -> None:
    mean, variance = np.zeros(4), np.ones(4)

    def forward(t, x, scale, bias):  # type: ignore[no-untyped-def]
        given = (x, scale, bias, mean, variance)
        return t.ops("BatchNormalization", *given, outputs=3, training_mode=1)[0]

    check_gradients(forward, _feed(shape, (4,), (4,)), atol=1e-6)


def test_reading_the_statistics_of_a_batch_is_refused() -> None:
    def forward(t, x):  # type: ignore[no-untyped-def]
        given = (x, np.ones(4), np.zeros(4), np.zeros(4), np.ones(4))
        return t.ops("BatchNormalization", *given, outputs=3, training_mode=1)

    (frozen,) = Differentiated(forward, _feed((2, 4, 3))).frozen
    assert "statistics" in frozen.reason


@pytest.mark.parametrize("axes", [[0, 2, 3], [1]])
def test_mean_variance_normalization(axes: list[int]) -> None:
    check_gradients(
        lambda t, x: t.op("MeanVarianceNormalization", x, axes=axes), _feed((2, 3, 2, 3))
    )


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [-1, 1])
def test_lp_normalization(p: int, axis: int) -> None:
    x = RNG.normal(size=(2, 3, 4))
    x = np.abs(x) if p == 1 else x  # onnx.reference takes no magnitudes
    check_gradients(lambda t, x: t.op("LpNormalization", x, p=p, axis=axis), {"x": x})


@pytest.mark.parametrize("size", [1, 2, 3])
def test_lrn(size: int) -> None:
    form = {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 1.5}
    x = RNG.normal(size=(4, 4, 1, 2))  # onnx.reference takes the batch for the channels
    check_gradients(lambda t, x: t.op("LRN", x, **form), {"x": x})
