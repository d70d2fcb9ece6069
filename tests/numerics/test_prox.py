"""The proximal maps against published numbers and their definition; the path they make."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from support.rounding import task

from ptq.numerics.admm import Eigenbasis
from ptq.numerics.gptq import with_damping
from ptq.numerics.prox import drawn_by_length, drawn_by_share, round_by_prox

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())

numbers = st.floats(-3, 3)


@pytest.mark.parametrize(("name", "drawn"), [("l1", drawn_by_length), ("l2", drawn_by_share)])
def test_published_numbers_come_out(name, drawn):
    w = np.array(VECTORS["inputs"]["w"])
    found = drawn(w, np.where(w < 0, -1.0, 1.0), 0.3)
    np.testing.assert_allclose(found, VECTORS[f"prox_binary_{name}_.3"]["w"], atol=1e-12)


@settings(max_examples=20)
@given(w=numbers, q=st.sampled_from([-1.0, 1.0]), strength=st.floats(0.01, 3))
def test_they_are_the_least_of_distance_and_force(w, q, strength):
    """``1/2 (x - w)^2`` and the force times the distance to the code, or half its square."""
    bounds = (min(w, q) - 1, max(w, q) + 1)
    for drawn, cost in (
        (drawn_by_share, lambda x: 0.5 * strength * (x - q) ** 2),
        (drawn_by_length, lambda x: strength * abs(x - q)),
    ):
        least = minimize_scalar(lambda x, c=cost: 0.5 * (x - w) ** 2 + c(x), bounds=bounds)
        # the minimum is flat: an error of its value of 1e-10 is one of 1e-5 of its place
        assert float(drawn(np.array(w), np.array(q), strength)) == pytest.approx(least.x, abs=1e-4)


@settings(max_examples=20)
@given(w=numbers, q=numbers, strength=st.floats(0, 10))
def test_they_lie_between_the_weight_and_its_code(w, q, strength):
    for drawn in (drawn_by_share, drawn_by_length):
        found = float(drawn(np.array(w), np.array(q), strength))
        assert min(w, q) - 1e-12 <= found <= max(w, q) + 1e-12
        assert float(drawn(np.array(w), np.array(q), 0.0)) == pytest.approx(w, abs=1e-12)
        assert float(drawn(np.array(w), np.array(q), 1e9)) == pytest.approx(q, abs=1e-8)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_no_row_is_worse_than_nearest_and_many_are_better(norm):
    made = task(1, groups=50)
    damped = with_damping(made.moments, 0.01)
    found = round_by_prox(made.w, Eigenbasis.of(damped), made.nearest, 50, 0.3, norm)
    before, after = (s.errors(made.w, damped) for s in (made.nearest, found))
    assert np.all(after <= before * (1 + 1e-4))  # of float32
    assert np.mean(after < 0.99 * before) > 0.25
    assert after.sum() < 0.8 * before.sum()
