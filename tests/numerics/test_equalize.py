"""Equalized ranges are those of the paper: even on both sides, whatever they were."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ptq.numerics.equalize import Tied, equalize

FREE = 2.0**-40
RANGES = arrays(np.float64, 5, elements=st.floats(1e-3, 1e3))


def pair(r1, r2, least=None):
    """Two dense layers of one row and one column, which lie on either side of a tensor."""
    r1, r2 = np.asarray(r1, float), np.asarray(r2, float)
    least = np.full(r1.size, FREE) if least is None else least
    return [r1.reshape(1, -1, 1), r2.reshape(1, 1, -1)], [Tied((0,), (1,), least)]


def test_the_worked_example():
    [s] = equalize(*pair([4, 0.2], [0.5, 8]))
    np.testing.assert_allclose(s, [np.sqrt(8), np.sqrt(0.025)])  # sqrt(r1 / r2), equation 11


@given(r1=RANGES, r2=RANGES)
def test_both_ranges_of_a_channel_become_equal_and_their_product_stays(r1, r2):
    [s] = equalize(*pair(r1, r2))
    np.testing.assert_allclose(r1 / s, r2 * s)
    np.testing.assert_allclose((r1 / s) * (r2 * s), r1 * r2)


@given(
    st.lists(arrays(np.float64, (4, 4), elements=st.floats(0.01, 100)), min_size=3, max_size=5),
)
def test_a_chain_comes_to_rest_where_every_pair_is_even(weights):
    layers = [w[None] for w in weights]
    tied = [Tied((i,), (i + 1,), np.full(4, FREE)) for i in range(len(layers) - 1)]
    factors = [np.ones(4), *equalize(layers, tied), np.ones(4)]
    scaled = [
        w / made[:, None] * read[None, :]
        for w, made, read in zip(weights, factors[1:], factors, strict=False)
    ]
    for before, behind in pairwise(scaled):
        # the last round moved no logarithm by 1e-3; a pair is out by what its neighbours moved
        np.testing.assert_allclose(before.max(axis=1), behind.max(axis=0), rtol=1e-2)


def test_channels_without_a_range_on_one_side_keep_their_factor():
    [s] = equalize(*pair([0, 2, 2], [1, 0, 8]))
    np.testing.assert_allclose(s, [1, 1, 0.5])


@given(r1=RANGES, r2=RANGES, least=arrays(np.float64, 5, elements=st.floats(0.01, 1)))
def test_no_factor_is_less_than_it_may_be(r1, r2, least):
    [s] = equalize(*pair(r1, r2, least))
    assert (s >= least * (1 - 1e-12)).all()
    assert (s[least >= 1] == 1).all()


def test_channels_that_must_stay_set_the_scale_of_the_others():
    # one factor for all means nothing to a precision: with 100 / 1 for all there is nothing to do
    least = np.array([1, FREE, FREE])
    [s] = equalize(*pair([100, 100, 100], [1, 1, 1], least))
    np.testing.assert_allclose(s, 1)


def test_several_makers_count_alike():
    layers = [
        np.array([4.0]).reshape(1, 1, 1),
        np.array([1.0]).reshape(1, 1, 1),
        np.ones((1, 1, 1)),
    ]
    [s] = equalize(layers, [Tied((0, 1), (2,), np.full(1, FREE))])
    np.testing.assert_allclose(s, np.sqrt(2))  # of the geometric mean of 4 and 1


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_layers_have_their_channels_in_order(groups):
    rng = np.random.default_rng(0)
    first = rng.uniform(0.1, 10, (1, 8, 3))
    second = rng.uniform(0.1, 10, (groups, 2, 8 // groups))
    [s] = equalize([first, second], [Tied((0,), (1,), np.full(8, FREE))])
    expected = np.sqrt(first[0].max(axis=1) / second.max(axis=1).reshape(-1))
    np.testing.assert_allclose(s, expected)
