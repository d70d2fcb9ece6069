"""Gradients of functions of one operand, and of powers, against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import Differentiated, check_gradients

RNG = np.random.default_rng(5)
SHAPES = st.sampled_from([(), (3,), (2, 3), (2, 1, 3)])
SMOOTH = ("Neg", "Exp", "Erf", "Tanh", "Sin", "Cos", "Softplus", "Softsign", "Identity")


@pytest.mark.parametrize("op_type", SMOOTH)
def test_a_smooth_function(op_type: str) -> None:
    check_gradients(lambda t, x: t.op(op_type, x), {"x": RNG.normal(size=(2, 5)) * 2})


@pytest.mark.parametrize("op_type", ["Abs", "Sqrt", "Log", "Reciprocal"])
def test_a_function_away_from_zero(op_type: str) -> None:
    x = RNG.uniform(0.2, 3.0, (2, 4)) * (RNG.choice([-1, 1], (2, 4)) if op_type == "Abs" else 1)
    check_gradients(lambda t, x: t.op(op_type, x), {"x": x})


@pytest.mark.parametrize("op_type", ["Sign", "Round", "Floor", "Ceil"])
def test_nothing_goes_through_steps(op_type: str) -> None:
    found = Differentiated(lambda t, x: t.op("Mul", x, t.op(op_type, x)), {"x": np.array([1.2])})
    np.testing.assert_allclose(found.gradient("x"), found.numerical("x"), rtol=1e-6)


@pytest.mark.parametrize("op_type", ["Abs", "Sqrt"])
def test_the_gradient_at_zero_is_zero(op_type: str) -> None:
    found = Differentiated(lambda t, x: t.op(op_type, x), {"x": np.array([0.0, 4.0])})
    assert found.gradient("x")[0] == 0
    assert found.gradient("x")[1] != 0


def test_dropout_at_inference_and_casts_of_floats() -> None:
    def forward(t, x):  # type: ignore[no-untyped-def]
        return t.op("Cast", t.op("Dropout", x, 0.5), to=11)

    check_gradients(forward, {"x": RNG.normal(size=(2, 3))})


def test_the_gradient_of_random_dropout_is_refused() -> None:
    def forward(t, x):  # type: ignore[no-untyped-def]
        return t.op("Dropout", x, 0.0, np.array(True))

    (frozen,) = Differentiated(forward, {"x": RNG.normal(size=3)}).frozen
    assert "random" in frozen.reason


@settings(max_examples=12)
@given(shape=SHAPES, other=SHAPES, seed=st.integers(0, 99))
def test_power_by_both_operands(shape: tuple[int, ...], other: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, b = rng.uniform(0.3, 2, shape), rng.uniform(-2, 3, other)
    check_gradients(lambda t, x, b: t.op("Pow", x, b), {"x": x, "b": b})


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 2])
def test_power_with_a_known_exponent(exponent: float) -> None:
    x = RNG.uniform(0.3, 2.0, (2, 3))
    check_gradients(lambda t, x: t.op("Pow", x, exponent), {"x": x})


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.0, 0.25])
def test_power_at_base_zero_is_finite_by_both_operands(exponent: float) -> None:
    expected = 1.0 if exponent == 1 else 0.0
    known = Differentiated(lambda t, x: t.op("Pow", x, exponent), {"x": np.zeros(2)}, seed=1)
    slope = Differentiated(lambda t, x: t.op("Identity", x), {"x": np.zeros(2)}, seed=1)
    np.testing.assert_array_equal(known.gradient("x"), expected * slope.gradient("x"))
    both = Differentiated(
        lambda t, x, b: t.op("Pow", x, b), {"x": np.zeros(2), "b": np.full(2, exponent)}, seed=1
    )
    np.testing.assert_array_equal(both.gradient("x"), expected * slope.gradient("x"))
    np.testing.assert_array_equal(both.gradient("b"), 0)
