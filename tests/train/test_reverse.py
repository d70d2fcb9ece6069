"""The reverse sweep: sums over readers, what is frozen and why, and what is left in the graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gradients import Differentiated, check_gradients

from ptq.train.straight_through import rounded, straight_through, without_gradient

RNG = np.random.default_rng(3)
A, B = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))


def test_a_value_read_twice_gets_the_sum() -> None:
    check_gradients(lambda t, a: t.op("Mul", t.op("Add", a, a), a), {"a": A})


def test_what_rounding_hides_is_passed_on() -> None:
    found = Differentiated(lambda t, a: t.op("Mul", rounded(t, a), 3.0), {"a": A})
    plain = Differentiated(lambda t, a: t.op("Mul", a, 3.0), {"a": A})
    np.testing.assert_array_equal(found.gradient("a"), plain.gradient("a"))


def test_a_straight_through_value_is_the_second_and_its_gradient_the_first() -> None:
    def forward(t, a, b):  # type: ignore[no-untyped-def]
        return straight_through(t, t.op("Mul", a, 2.0), t.op("Mul", b, 5.0))

    found = Differentiated(forward, {"a": A, "b": B})
    twice = Differentiated(lambda t, a: t.op("Mul", a, 2.0), {"a": A})
    np.testing.assert_array_equal(found.gradient("a"), twice.gradient("a"))
    assert [f.value for f in found.frozen] == ["b"]


def test_no_gradient_goes_through_a_stop() -> None:
    def forward(t, a, b):  # type: ignore[no-untyped-def]
        return t.op("Mul", without_gradient(t, a), b)

    found = Differentiated(forward, {"a": A, "b": B})
    assert [f.value for f in found.frozen] == ["a"]
    assert "b" in found.of


def test_what_is_before_an_operator_without_a_rule_is_frozen_with_the_reason() -> None:
    def forward(t, a, b):  # type: ignore[no-untyped-def]
        return t.op("Add", t.op("Add", t.op("Det", t.op("Add", a, 1.0)), a), b)

    found = Differentiated(forward, {"a": RNG.normal(size=(2, 2)), "b": RNG.normal(size=(2, 2))})
    (frozen,) = found.frozen
    assert (frozen.value, frozen.op_type) == ("a", "Det")
    assert "rule" in frozen.reason
    np.testing.assert_allclose(found.gradient("b"), found.numerical("b"), rtol=1e-6)


def test_integers_on_the_way_do_not_freeze() -> None:
    def forward(t, a):  # type: ignore[no-untyped-def]
        count = t.op("Cast", t.op("Size", a), to=11)
        return t.op("Div", a, count)

    check_gradients(forward, {"a": A})


@given(st.sampled_from(["Add", "Sub", "Mul", "Div", "Min", "Max", "Sum"]), st.data())
def test_arithmetic_of_broadcast_operands(op_type: str, data: st.DataObject) -> None:
    shapes = st.sampled_from([(2, 3), (1, 3), (3,), (2, 1), (), (1,)])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    a, b = (rng.uniform(0.5, 2.0, data.draw(shapes)) for _ in range(2))
    check_gradients(lambda t, x, y: t.op(op_type, x, y), {"a": a, "b": b})


def test_the_mean_of_operands() -> None:
    check_gradients(lambda t, a, b: t.op("Mean", a, b, a), {"a": A, "b": B})


@pytest.mark.parametrize("shape", [(2, 3), (3,), (1, 1)])
def test_where(shape: tuple[int, ...]) -> None:
    chosen = np.array([[True, False, True], [False, False, True]])
    check_gradients(
        lambda t, a, b: t.op("Where", chosen, a, b), {"a": A, "b": RNG.normal(size=shape)}
    )
