"""Products of matrices against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import check_gradients

RNG = np.random.default_rng(5)


@settings(max_examples=8)
@given(
    turned=st.tuples(st.booleans(), st.booleans()),
    factors=st.sampled_from([(1.0, 1.0), (0.5, -2.0)]),
    bias=st.sampled_from([None, (), (1,), (4,), (2, 1), (2, 4)]),
)
def test_gemm(
    turned: tuple[bool, bool], factors: tuple[float, float], bias: tuple[int, ...] | None
) -> None:
    feed = {
        "a": RNG.normal(size=(3, 2) if turned[0] else (2, 3)),
        "b": RNG.normal(size=(4, 3) if turned[1] else (3, 4)),
    }
    if bias is not None:
        feed["c"] = RNG.normal(size=bias)
    attributes = {"transA": int(turned[0]), "transB": int(turned[1])}
    alpha, beta = factors
    check_gradients(lambda t, *v: t.op("Gemm", *v, **attributes, alpha=alpha, beta=beta), feed)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)),
        ((2, 2, 3), (3, 2)),
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 2, 3), (3,)),
        ((3,), (2, 3, 2)),
        ((2, 1, 2, 3), (2, 3, 2)),
        ((1, 2, 3), (2, 3, 2)),
        ((1, 2), (2, 2, 3)),
        ((2, 1, 1, 2), (1, 2, 2, 1)),
    ],
)
def test_matmul_of_batched_and_broadcast_operands(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    feed = {"a": RNG.normal(size=a), "b": RNG.normal(size=b)}
    check_gradients(lambda t, x, y: t.op("MatMul", x, y), feed)
