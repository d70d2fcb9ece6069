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


@given(seed=st.integers(0, 10**6))
def test_of_floats_sums_are_those_of_float64_to_rounding(seed):
    x = np.random.default_rng(seed).normal(3, 1, (2, 300, 5)).astype(np.float32)
    gram, wide = Gram.of(x), x.astype(np.float64)
    # 256 products of float32 are added up in float32
    exact, magnitudes = (np.einsum("gpi,gpj->gij", a, a) for a in (wide, np.abs(wide)))
    assert np.all(np.abs(gram.total - exact) <= 256 * 2.0**-24 * magnitudes)
    np.testing.assert_allclose(gram.mean, wide.mean(axis=1), rtol=1e-12)
    centred = wide - wide.mean(axis=1, keepdims=True)
    spread = np.einsum("gpi,gpj->gij", centred, centred)
    np.testing.assert_allclose(gram.centred, spread, atol=256 * 2.0**-24 * magnitudes.max())
