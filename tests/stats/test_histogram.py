import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.stats.histogram import EMPTY_EXPONENT, RESOLUTION, Histogram

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 40), elements=FINITE)
ORDINARY = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-10, 10, width=32))


def hist_of(*values):
    return Histogram.of(np.array(values, np.float32))


@given(ARRAYS)
def test_bins_are_those_of_exact_arithmetic(x):
    hist = Histogram.of(x)
    wanted = Counter(
        math.floor(Fraction(float(v)) / Fraction(2) ** hist.exponent) for v in x if v != 0
    )
    found = {hist.first + i: int(n) for i, n in enumerate(hist.counts) if n}
    assert found == wanted
    assert hist.zeros == np.count_nonzero(x == 0)
    assert hist.total == x.size


@pytest.mark.parametrize("largest", [1e-44, 1e-36, 0.7, 8191.5, 8192.0, 1e9, 3e38])
@pytest.mark.parametrize("small", [1e-45, -1e-45, 1e-40, -1e-40])
def test_a_value_that_would_underflow_falls_into_the_bin_beside_zero(largest, small):
    hist = hist_of(largest, small)
    index = math.floor(Fraction(float(np.float32(small))) / Fraction(2) ** hist.exponent)
    assert hist.counts[index - hist.first] == 1


@given(ARRAYS.filter(np.any))
def test_the_exponent_is_set_by_the_largest_value_alone(x):
    hist = Histogram.of(x)
    peak = np.max(np.abs(x))
    assert RESOLUTION <= math.ldexp(float(peak), -hist.exponent) < 2 * RESOLUTION
    assert hist.exponent == hist_of(peak).exponent == hist_of(-peak).exponent
    assert hist.counts[0] > 0
    assert hist.counts[-1] > 0
    assert hist.counts.size <= 4 * RESOLUTION


def test_no_bins_for_zeros():
    for hist in (hist_of(0, 0, -0.0), hist_of(0) + hist_of(0, 0)):
        assert (hist.exponent, hist.counts.size, hist.zeros) == (EMPTY_EXPONENT, 0, 3)
        assert (hist.total, hist.quantile(0.5), hist.width) == (3, 0, 0)
        assert hist.edges().size == hist.centres().size == 0
        assert hist.abs_counts(4).tolist() == [0, 0, 0, 0]
        assert hist.share_outside(-1, 1) == 0
    assert hist_of().total == 0


def test_a_large_array_is_counted_in_blocks():
    x = np.random.default_rng(0).standard_normal(200_001).astype(np.float32)
    x[::7] = 0
    hist = Histogram.of(x)
    inside = x[x != 0]
    assert hist.counts.tolist() == np.histogram(inside.astype(float), hist.edges())[0].tolist()
    assert hist.zeros == x.size - inside.size


def test_edges_and_centres():
    hist = hist_of(1.0, 2.0 - 2**-12, -1.0)
    assert hist.width == 2**-12
    assert (hist.edges()[0], hist.edges()[-1]) == (-1.0, 2.0)
    assert np.array_equal(hist.centres(), (hist.edges()[1:] + hist.edges()[:-1]) / 2)


@given(ARRAYS.filter(np.any), st.integers(0, 300))
def test_coarsening_is_counting_in_wider_bins(x, shift):
    fine = Histogram.of(x)
    coarse = fine.coarsened(fine.exponent + shift)
    wanted = Counter()
    for i, n in enumerate(fine.counts):
        wanted[(fine.first + i) >> shift] += int(n)
    found = {coarse.first + i: int(n) for i, n in enumerate(coarse.counts)}
    assert {i: n for i, n in found.items() if n} == {i: n for i, n in wanted.items() if n}
    assert coarse.zeros == fine.zeros


def test_bins_cannot_be_split():
    hist = hist_of(1.0)
    with pytest.raises(ValueError, match="split"):
        hist.coarsened(hist.exponent - 1)


@given(ORDINARY, st.integers(1, 300))
def test_rebinning_keeps_the_mass(x, bins):
    hist = Histogram.of(x)
    peak = float(np.max(np.abs(x))) or 1.0
    counts = hist.abs_counts(bins, peak)
    # A cumulative sum of up to 200 counts, interpolated in float64.
    assert counts.sum() == pytest.approx(np.count_nonzero(x), rel=1e-12)
    assert np.all(counts >= 0)


@given(ORDINARY.filter(np.any), st.integers(1, 300))
def test_rebinned_mass_is_off_by_no_more_than_the_bins_at_its_ends(x, bins):
    hist = Histogram.of(x)
    size = np.abs(x[x != 0]).astype(np.float64)
    peak = size.max()
    below = np.concatenate([[0], np.cumsum(hist.abs_counts(bins, peak))])
    for i, mass in enumerate(below):
        edge = peak * i / bins
        assert np.sum(size <= edge - hist.width) <= mass + 1e-9
        assert mass <= np.sum(size <= edge + hist.width) + 1e-9


def test_an_atom_at_the_peak_is_in_the_last_bin():
    # 6 is the lower end of its bin; none of its mass may spill over the end.
    counts = hist_of(1, 2, 6, 6, 6).abs_counts(100, 6.0)
    assert counts[-1] == 3
    assert counts.sum() == 5


@given(ORDINARY, st.floats(0, 1))
def test_quantiles_are_within_a_bin_of_the_sample_s(x, p):
    hist = Histogram.of(x)
    sample = np.sort(x.astype(np.float64))
    # The rank p * n rounds to either side of a whole number.
    ranks = np.ceil(p * x.size + np.array([-1e-9, 1e-9])).astype(int)
    lo, hi = sample[np.clip(ranks - 1, 0, x.size - 1)]
    assert lo - hist.width <= hist.quantile(p) <= hi + hist.width


@given(ORDINARY, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_ascend(x, p, q):
    hist = Histogram.of(x)
    p, q = sorted((p, q))
    assert hist.quantile(p) <= hist.quantile(q)


@given(ORDINARY)
def test_the_folded_histogram_is_that_of_absolute_values(x):
    folded, wanted = Histogram.of(x).folded(), Histogram.of(np.abs(x))
    # Values on an edge are counted below it if negative: compare distributions up to one bin.
    assert folded.total == wanted.total
    for p in np.linspace(0, 1, 11):
        assert folded.quantile(p) == pytest.approx(wanted.quantile(p), abs=wanted.width * 1.001)


@given(ORDINARY, st.floats(-12, 12), st.floats(-12, 12))
def test_the_share_outside_is_short_by_no_more_than_a_bin_at_either_end(x, a, b):
    lo, hi = min(a, b), max(a, b)
    hist = Histogram.of(x)
    share = hist.share_outside(lo, hi)
    x, w = x.astype(np.float64), hist.width
    # A share of up to 200 values is a multiple of 0.005.
    assert np.mean((x < lo - w) | (x > hi + w)) <= share + 1e-9
    assert share <= np.mean((x < lo) | (x > hi)) + 1e-9


@given(ORDINARY)
def test_nothing_is_outside_of_the_extremes(x):
    assert Histogram.of(x).share_outside(float(x.min()), float(x.max())) == 0
