"""Gradients of softmax, its logarithm, and of sums of products over named axes."""

from __future__ import annotations

import numpy as np
import pytest
from support.gradients import Differentiated, check_gradients

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(op_type: str, axis: int) -> None:
    x = RNG.normal(size=(2, 3, 4))
    check_gradients(lambda t, x: t.op(op_type, x, axis=axis), {"x": x})


def test_softmax_of_large_numbers_is_finite() -> None:
    x = np.array([[800.0, -800.0, 0.0]])
    found = Differentiated(lambda t, x: t.op("Softmax", x), {"x": x})
    assert np.isfinite(found.gradient("x")).all()


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bhid, bhjd -> bhij", [(2, 1, 3, 2), (2, 1, 2, 2)]),
        ("i,j->ij", [(2,), (3,)]),
        ("ij,ij->", [(2, 3), (2, 3)]),
        ("ijk->kij", [(2, 3, 2)]),
        ("ij,jk,kl->il", [(2, 3), (3, 2), (2, 2)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    feed = {f"x{i}": RNG.normal(size=shape) for i, shape in enumerate(shapes)}
    check_gradients(lambda t, *x: t.op("Einsum", *x, equation=equation), feed)


@pytest.mark.parametrize("equation", ["ij,k->k", "ii,i->i", "...i,i->...", "ij,jk"])
def test_einsum_of_other_forms_is_refused(equation: str) -> None:
    sizes = {"ij,k->k": (2,), "ij,jk": (2, 3)}.get(equation, (2,))
    feed = {"a": RNG.normal(size=(2, 2)), "b": RNG.normal(size=sizes)}
    found = Differentiated(lambda t, a, b: t.op("Einsum", a, b, equation=equation), feed)
    assert {f.value for f in found.frozen} == {"a", "b"}
    assert all("equation" in f.reason for f in found.frozen)
