"""Gradients of activation functions against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from support.gradients import Differentiated, check_gradients

RNG = np.random.default_rng(6)
#: Away from the kinks of all of them: -3, -2.5, 0, 1, 2, 2.5, 3, 6.
X = np.array([[-7.3, -2.8, -1.4, -0.3], [0.2, 0.7, 1.7, 2.2], [2.7, 4.4, 5.1, 9.2]])

FORMS: dict[str, list[dict[str, float | str]]] = {
    "Relu": [{}],
    "LeakyRelu": [{}, {"alpha": 0.3}, {"alpha": 0.0}, {"alpha": -0.2}, {"alpha": 1.5}],
    "ThresholdedRelu": [{}, {"alpha": 2.0}],
    "Sigmoid": [{}],
    "HardSigmoid": [{}, {"alpha": 0.5, "beta": 0.0}],
    "HardSwish": [{}],
    "Mish": [{}],
    "Elu": [{}, {"alpha": 0.7}],
    "Selu": [{}, {"alpha": 1.2, "gamma": 0.9}],
    "Celu": [{}, {"alpha": 2.0}],
    "Gelu": [{"approximate": "tanh"}],
}


@pytest.mark.parametrize(("op_type", "form"), [(n, f) for n, fs in FORMS.items() for f in fs])
def test_an_activation(op_type: str, form: dict[str, float | str]) -> None:
    check_gradients(lambda t, x: t.op(op_type, x, **form), {"x": X})


@pytest.mark.parametrize("alpha", [1.0, 1.7])
def test_swish(alpha: float) -> None:
    check_gradients(lambda t, x: t.op("Swish", x, alpha=alpha), {"x": X}, opset=24)


def test_gelu_has_the_gradient_of_its_definition() -> None:
    def defined(t, x):  # type: ignore[no-untyped-def]
        erf = t.op("Erf", t.op("Mul", x, 0.5**0.5))
        return t.op("Mul", t.op("Mul", x, 0.5), t.op("Add", erf, 1.0))

    found = Differentiated(lambda t, x: t.op("Gelu", x), {"x": X})  # its kernel is in float32
    by_parts = Differentiated(defined, {"x": X})
    np.testing.assert_allclose(found.gradient("x"), by_parts.gradient("x"), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 1), (3, 4)])
def test_prelu_by_its_slope(shape: tuple[int, ...]) -> None:
    slope = RNG.uniform(-0.5, 1.5, shape)
    check_gradients(lambda t, x, s: t.op("PRelu", x, s), {"x": X, "s": slope})


@pytest.mark.parametrize(
    ("lo", "hi"),
    [(0.0, 6.0), (-2.5, 2.5), (None, 2.5), (1.0, None), (None, None), (-np.inf, 2.5)],
)
def test_clip_between_constants(lo: float | None, hi: float | None) -> None:
    check_gradients(lambda t, x: t.op("Clip", x, lo, hi), {"x": X})


def test_clip_by_its_bounds() -> None:
    feed = {"x": X, "lo": np.array(-2.5), "hi": np.array(2.5)}
    check_gradients(lambda t, x, lo, hi: t.op("Clip", x, lo, hi), feed)


def test_clip_at_its_bounds_gives_the_gradient_to_them() -> None:
    feed = {"x": np.array([0.0, 1.0, 2.0]), "lo": np.array(0.0), "hi": np.array(2.0)}
    found = Differentiated(lambda t, x, lo, hi: t.op("Clip", x, lo, hi), feed)
    weights = Differentiated(lambda t, x: t.op("Identity", x), {"x": feed["x"]}).gradient("x")
    np.testing.assert_array_equal(found.gradient("x"), weights * [0, 1, 0])
    assert found.gradient("lo") == weights[0]
    assert found.gradient("hi") == weights[2]
