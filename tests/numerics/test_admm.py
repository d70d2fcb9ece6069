"""ADMM against its equations written out, with an inverse at each step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounding import task

from ptq.numerics.admm import Eigenbasis, Schedule, round_by_admm
from ptq.numerics.gptq import output_errors, with_damping
from ptq.numerics.solutions import Solution


def slowly(made, damped, iterations, *, free):
    """Return the best codes and scales of each row of the first group."""
    grid, w = made.nearest.grid, made.w[0]
    h, eye = damped[0], np.eye(w.shape[1])
    rho, dual = 0.1 * np.linalg.eigvalsh(h).mean(), np.zeros_like(w)
    zero, scale = grid.zero_point[0], grid.scale[0].copy()
    codes = made.nearest.codes[0]
    drawn, best = (codes - zero) * scale, None
    for step in range(iterations + 1):
        lost = drawn - w
        error = np.einsum("rc,cd,rd->r", lost, h, lost)
        if best is None:
            best = error, drawn.copy()
        better = error < best[0]
        best = np.where(better, error, best[0]), np.where(better[:, None], drawn, best[1])
        if step == iterations:
            return best[1]
        w_free = (w @ h + rho * (drawn - dual)) @ np.linalg.inv(h + rho * eye)
        aim = w_free + dual
        codes = np.clip(np.rint(aim / scale + zero), grid.qmin, grid.qmax)
        if free:
            q = codes - zero
            scale = (aim * q).sum(axis=1, keepdims=True) / (q * q).sum(axis=1, keepdims=True)
            scale = scale.astype(np.float32).astype(float)
        drawn = (codes - zero) * scale
        dual, rho = (dual + w_free - drawn) / 1.06, rho * 1.06
    raise AssertionError


@pytest.mark.parametrize("free", [False, True])
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_it_is_its_equations(free, seed):
    made = task(seed, block=6 if free else None)
    damped = with_damping(made.moments, 0.1)
    found = round_by_admm(
        made.w, Eigenbasis.of(damped), made.nearest, made.block, Schedule(iterations=8)
    )
    want = slowly(made, damped, 8, free=free)
    values = found.grid.values(found.codes)[0]
    same = np.all(np.abs(values - want) < 1e-5, axis=1)
    # a value half-way between codes may fall to either side
    assert np.mean(same) > 0.6


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_no_row_is_worse_than_its_start_and_more_iterations_are_no_worse(seed):
    made = task(seed, groups=2, block=3)
    damped = with_damping(made.moments, 0.1)
    basis = Eigenbasis.of(damped)
    before = made.nearest.errors(made.w, damped)
    for iterations in (3, 12):
        schedule = Schedule(iterations=iterations)
        found = round_by_admm(made.w, basis, made.nearest, made.block, schedule)
        after = output_errors(made.w, found.codes, found.grid, damped)
        assert np.all(after <= before * (1 + 1e-4))  # of float32
        before = after


def test_the_basis_keeps_errors():
    made = task(0, groups=2)
    damped = with_damping(made.moments, 0.1)
    basis = Eigenbasis.of(damped)
    start = made.nearest
    lost = basis.into(start.grid.values(start.codes) - made.w)
    want = Solution(start.codes, start.grid).errors(made.w, damped)
    # of float32, as shares of the largest eigenvalue
    largest = np.linalg.eigvalsh(damped)[:, -1:]
    np.testing.assert_allclose(basis.errors(lost) * largest, want, rtol=1e-4)
    np.testing.assert_allclose(basis.back(basis.into(made.w)), made.w, atol=1e-5)
