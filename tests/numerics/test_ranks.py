"""Rank correlation, against scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from ptq.numerics.ranks import ranks, spearman

# few different values, so that there are ties
VALUES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20)


@given(VALUES)
def test_ranks_and_their_correlation_are_those_of_scipy(pairs):
    a, b = ([float(x) for x in column] for column in zip(*pairs, strict=True))
    np.testing.assert_array_equal(ranks(a), rankdata(a))
    found = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        # sums of at most 20 products of ranks that are multiples of a half
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_any_growing_function_is_the_same_order():
    a = [0.1, 3.0, -2.0, 7.5, 0.0]
    assert spearman(a, [np.exp(x) for x in a]) == pytest.approx(1.0, abs=1e-12)
    assert spearman(a, [-x for x in a]) == pytest.approx(-1.0, abs=1e-12)


def test_nothing_has_no_order():
    assert spearman([], []) is None
    with pytest.raises(ValueError, match="cannot be paired"):
        spearman([1.0], [])
