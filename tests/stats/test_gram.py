"""Sums of products of codes are exact, however they are cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ptq.stats.gram import Gram


@given(seed=st.integers(0, 10**6), count=st.integers(0, 700), at=st.integers(0, 700))
def test_a_sum_depends_only_on_the_vectors(seed, count, at):
    codes = np.random.default_rng(seed).integers(-255, 256, (2, count, 5))
    exact = np.einsum("gpi,gpj->gij", codes, codes)
    x = codes.astype(np.float32)
    whole, parts = Gram.of(x), Gram.of(x[:, at:]) + Gram.of(x[:, :at])
    np.testing.assert_array_equal(whole.total, exact)
    np.testing.assert_array_equal(parts.total, exact)
    assert whole.count == parts.count == count


def test_the_largest_codes_are_still_exact():
    x = np.full((1, 1000, 3), -255, np.float32)
    np.testing.assert_array_equal(Gram.of(x).total, np.full((1, 3, 3), 1000 * 255**2))
