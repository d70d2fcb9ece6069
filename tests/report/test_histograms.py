"""Histograms small enough for a picture."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.report.histograms import MOST_BINS, Bins
from ptq.stats.histogram import Histogram

FLOATS = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-(2.0**99), 2.0**99, width=32)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-99]),
)


@given(FLOATS)
def test_every_value_is_counted_in_its_bin(values):
    bins = Bins.of(Histogram.of(values))
    edges = bins.lo + bins.width * np.arange(len(bins.counts) + 1)
    kept = values[values != 0].astype(np.float64)
    # the brute-force count: lower edges belong to their bins, upper ones do not
    wanted = [int(((kept >= a) & (kept < b)).sum()) for a, b in pairwise(edges)]
    assert list(bins.counts) == wanted
    assert bins.zeros == values.size - kept.size
    assert bins.total == values.size


@given(FLOATS)
def test_there_are_few_bins_and_none_is_wasted_at_the_ends(values):
    bins = Bins.of(Histogram.of(values))
    assert len(bins.counts) <= MOST_BINS
    if bins.counts:
        assert bins.counts[0] and bins.counts[-1]
        assert bins.lo <= values.min(initial=np.inf, where=values != 0)
        assert bins.hi > values.max(initial=-np.inf, where=values != 0)


def test_a_picture_has_as_many_bins_as_it_may():
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    assert len(Bins.of(Histogram.of(values)).counts) > MOST_BINS // 2


def test_nothing_but_zeros_has_no_bins():
    assert Bins.of(Histogram.of(np.zeros(5, np.float32))) == Bins(
        lo=0.0, width=0.0, counts=(), zeros=5
    )
