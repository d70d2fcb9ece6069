"""Gradients of reductions against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import Differentiated, check_gradients

OPERATORS = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]


@settings(max_examples=6)
@pytest.mark.parametrize("op_type", OPERATORS)
@given(axes=st.sets(st.integers(-3, -1)), kept=st.booleans(), seed=st.integers(0, 99))
def test_a_reduction(op_type: str, axes: set[int], kept: bool, seed: int) -> None:
    x = np.random.default_rng(seed).uniform(0.3, 2.0, (2, 3, 2))
    x = x if op_type == "LogSum" else x - 1.13  # which no number is within a step of
    given_axes = sorted(axes) if axes else None
    check_gradients(
        lambda t, x: t.op(f"Reduce{op_type}", x, given_axes, keepdims=int(kept)), {"x": x}
    )


@pytest.mark.parametrize("op_type", OPERATORS[:-1])  # onnx.reference fails on the last
def test_a_reduction_of_a_number(op_type: str) -> None:
    check_gradients(lambda t, x: t.op(f"Reduce{op_type}", x), {"x": np.array(1.7)})


@pytest.mark.parametrize("zeros", [1, 2])
def test_a_product_with_zeros(zeros: int) -> None:
    x = np.array([[0.0, 2.0, 3.0, -1.5], [1.0, 0.5, 2.0, 3.0]])
    x[0, :zeros] = 0
    check_gradients(lambda t, x: t.op("ReduceProd", x, [1]), {"x": x})


def test_the_gradient_of_the_length_of_nothing_is_zero() -> None:
    found = Differentiated(lambda t, x: t.op("ReduceL2", x), {"x": np.zeros(3)})
    np.testing.assert_array_equal(found.gradient("x"), 0)


def test_equal_extremes_share_the_gradient() -> None:
    found = Differentiated(lambda t, x: t.op("ReduceMax", x, keepdims=0), {"x": np.ones(4)})
    assert np.ptp(found.gradient("x")) == 0


def test_a_reduction_of_no_axis() -> None:
    x = np.array([[1.0, 2.0]])
    check_gradients(lambda t, x: t.op("ReduceSum", x, noop_with_empty_axes=1), {"x": x})
    found = Differentiated(
        lambda t, x: t.op("ReduceSumSquare", x, noop_with_empty_axes=1), {"x": x}
    )
    assert "axis" in found.frozen[0].reason
