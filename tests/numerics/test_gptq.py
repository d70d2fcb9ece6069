"""GPTQ against published numbers, brute force, and its greedy order written out."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.numerics.gptq import Grid, output_errors, round_by_gptq

TINY = 1e-12


def grid(scale, *, bits=8, zero_point=0.0, partners=None, limit=128):
    scale = np.atleast_2d(np.asarray(scale, float))[:, :, None]
    bound = np.empty((0, 0), int) if partners is None else np.asarray(partners)
    half = 1 << (bits - 1)
    return Grid(scale, np.full(scale.shape, zero_point), -half, half - 1, bound, limit)


def problem(seed, *, groups=1, rows=3, columns=6, vectors=40):
    """Return weights, correlated inputs' sums, and scales."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, columns, columns)) + 1.0
    x = rng.normal(size=(groups, vectors, columns)) @ mixed
    w = rng.normal(size=(groups, rows, columns))
    return w, x.transpose(0, 2, 1) @ x, np.abs(w).max(axis=2) / 3.5


def nearest(w, grid):
    steps = np.rint(w / grid.scale + grid.zero_point)
    return np.clip(steps, grid.qmin, grid.qmax)


def test_the_published_example_comes_out():
    """ALGORITHMS D2: nearest costs 2.24, GPTQ finds the optimum of 0.24."""
    gram = np.array([[[2, 1.5, 1], [1.5, 2, 1.5], [1, 1.5, 2]]])
    w, on = np.full((1, 1, 3), 0.4), grid([1.0])
    codes = round_by_gptq(w, gram, on, damping=TINY)
    np.testing.assert_array_equal(codes, [[[0, 1, 0]]])
    assert output_errors(w, codes, on, gram)[0, 0] == pytest.approx(0.24)
    assert output_errors(w, np.zeros_like(w), on, gram)[0, 0] == pytest.approx(2.24)


@given(seed=st.integers(0, 10**6), damping=st.sampled_from([1e-3, 0.01, 1.0]))
def test_inputs_without_correlation_are_rounded_to_nearest(seed, damping):
    w, gram, scale = problem(seed, groups=2)
    on = grid(scale)
    diagonal = gram * np.eye(gram.shape[1])
    diagonal[:, 0, 0] = 0.0  # an input that is always 0
    np.testing.assert_array_equal(round_by_gptq(w, diagonal, on, damping=damping), nearest(w, on))


@given(seed=st.integers(0, 10**6), columns=st.sampled_from([5, 70, 200]))
def test_it_is_what_the_exact_update_gives_in_the_same_order(seed, columns):
    """Optimal Brain Quantization, NeurIPS 2022: the inverse is downdated after each weight."""
    w, gram, scale = problem(seed, groups=2, rows=2, columns=columns, vectors=3 * columns)
    on = grid(scale, bits=4)
    found = round_by_gptq(w, gram, on, damping=0.05)
    for g in range(len(w)):
        diagonal = np.diagonal(gram[g])
        inverse = np.linalg.inv(gram[g] + 0.05 * diagonal.mean() * np.eye(columns))
        rest, order = w[g] / on.scale[g], np.argsort(-diagonal, kind="stable")
        codes = np.zeros_like(rest)
        for j in order:
            codes[:, j] = np.clip(np.rint(rest[:, j]), on.qmin, on.qmax)
            rest -= np.outer((rest[:, j] - codes[:, j]) / inverse[j, j], inverse[j])
            inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
            inverse[j, j] = 1.0  # its row and column are zero now, and never read
        # a value half-way between codes may fall to either side: few weights, if any
        assert np.mean(found[g] != codes) < 0.02


def test_on_the_average_it_is_nearer_to_the_optimum_than_nearest():
    """Of every code near each weight: 3^6 candidates a row."""
    ratios = {"nearest": [], "gptq": []}
    offsets = np.array(list(product([-1, 0, 1], repeat=6)))
    for seed in range(40):
        w, gram, scale = problem(seed, rows=1)
        on = grid(scale, bits=3)
        rounded = nearest(w, on)
        candidates = np.clip(rounded[0] + offsets, on.qmin, on.qmax)
        many = np.broadcast_to(w[0], candidates.shape)
        wide = grid(np.broadcast_to(scale, (1, len(candidates))), bits=3)
        least = output_errors(many[None], candidates[None], wide, gram).min()
        codes = round_by_gptq(w, gram, on, damping=TINY)
        assert output_errors(w, codes, on, gram)[0, 0] >= least * (1 - 1e-9)
        ratios["gptq"].append(output_errors(w, codes, on, gram)[0, 0] / least)
        ratios["nearest"].append(output_errors(w, rounded, on, gram)[0, 0] / least)
    assert np.median(ratios["gptq"]) < 0.5 * np.median(ratios["nearest"])


@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_inputs_does_not_matter(seed):
    w, gram, scale = problem(seed)
    turned = np.random.default_rng(seed).permutation(w.shape[2])
    codes = round_by_gptq(w, gram, grid(scale), damping=0.01)
    again = round_by_gptq(w[:, :, turned], gram[:, turned][:, :, turned], grid(scale), damping=0.01)
    np.testing.assert_array_equal(again, codes[:, :, turned])


@given(seed=st.integers(0, 10**6), zero_point=st.sampled_from([0.0, 5.0]))
def test_codes_that_are_bound_to_one_another_keep_their_bounds(seed, zero_point):
    w, gram, scale = problem(seed, groups=2, rows=4, columns=8)
    pairs = [[1, 0, 3, 2, 5, 4, 7, 6], [-1, 2, 1, 4, 3, 6, 5, -1]]
    bound = grid(scale / 36, zero_point=zero_point, partners=pairs)  # codes up to 126
    codes = round_by_gptq(w, gram, bound, damping=0.01)
    for row in pairs:
        for here, there in enumerate(row):
            if there >= 0:
                assert np.abs(codes[:, :, here] + codes[:, :, there]).max() <= 128
    free = round_by_gptq(w, gram, grid(scale / 36, zero_point=zero_point), damping=0.01)
    fits = all(
        np.abs(free[:, :, a] + free[:, :, b]).max() <= 128
        for row in pairs
        for a, b in enumerate(row)
        if b >= 0
    )
    assert not fits or np.array_equal(free, codes)
    assert np.all((codes >= -128) & (codes <= 127))


def test_moments_that_rounding_made_indefinite_are_damped_as_far_as_it_takes():
    w, gram, scale = problem(0)
    wrong = gram - 1.5 * np.linalg.eigvalsh(gram)[:, :1, None] * np.eye(gram.shape[1])
    assert np.linalg.eigvalsh(wrong).min() < 0
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(wrong)
    codes = round_by_gptq(w, wrong, grid(scale), damping=1e-9)
    assert np.isfinite(codes).all()
    assert np.abs(grid(scale).values(codes) - w).max() < 4 * scale.max()


def test_each_column_may_have_a_grid_of_its_own():
    """As if each input were measured in units of its own: the order of the inputs stays."""
    w, gram, scale = problem(1)
    order = np.argsort(-np.diagonal(gram[0]), kind="stable")
    units = np.empty(6)
    units[order] = 2.0 ** np.arange(6)  # later inputs become smaller still
    one = grid(scale)
    # an even zero point, for ties go to even codes
    zero_point = np.full(w.shape, 2.0)
    wide = Grid(one.scale * units, zero_point, one.qmin, one.qmax, one.partners, one.limit)
    other = gram / units / units[:, None]
    np.testing.assert_array_equal(
        round_by_gptq(w, gram, one, damping=TINY) + 2,
        round_by_gptq(w * units, other, wide, damping=TINY * 1e-3),
    )
