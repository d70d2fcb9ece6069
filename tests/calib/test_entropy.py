import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.calib.entropy import divergences

EPSILON = 1e-4

# Sums of a few thousand terms of a few units, of which the divergence is a small remainder.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


def smoothed(counts):
    empty = counts == 0
    taken = EPSILON * empty.sum() / (~empty).sum()
    return np.where(empty, EPSILON, counts - taken)


def literal(counts, start, stop, levels):
    """The slides, step by step, with smoothing and both ends folded."""
    kept = [float(c) for c in counts[start:stop]]
    if not any(kept):
        return np.inf
    p = kept.copy()
    p[0] += sum(counts[:start])
    p[-1] += sum(counts[stop:])
    q = [0.0] * len(kept)
    for j in range(levels):
        group = range(j * len(kept) // levels, (j + 1) * len(kept) // levels)
        filled = [k for k in group if kept[k] > 0]
        for k in filled:
            q[k] = sum(kept[m] for m in group) / len(filled)
    p, q = smoothed(np.array(p)), smoothed(np.array(q))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


def check(counts, start, stop, levels):
    counts = np.asarray(counts, np.float64)
    found = divergences(counts, np.asarray(start), np.asarray(stop), levels)
    wanted = [literal(counts, a, b, levels) for a, b in zip(start, stop, strict=True)]
    assert found == pytest.approx(wanted, rel=RELATIVE, abs=ABSOLUTE)


COUNTS = hnp.arrays(
    np.int64,
    st.integers(20, 80),
    elements=st.one_of(st.integers(0, 3), st.integers(0, 100_000)),
).filter(np.any)


@given(COUNTS, st.sampled_from([1, 2, 4, 8, 16, 13]))
def test_thresholds_agree_with_the_slides(counts, levels):
    stop = np.arange(max(levels, 2), counts.size + 1)
    check(counts, 0 * stop, stop, levels)


@given(COUNTS, st.sampled_from([2, 4, 8, 16]), st.data())
def test_two_ends_agree_with_the_slides(counts, levels, data):
    start = data.draw(st.integers(0, counts.size - levels))
    stop = data.draw(st.integers(start + levels, counts.size))
    check(counts, [start], [stop], levels)


@given(COUNTS, st.integers(2, 19))
def test_more_levels_than_bins_lose_only_what_is_clipped(counts, stop):
    check(counts, [0], [stop], 64)


@pytest.mark.parametrize("levels", [128, 256])
def test_a_full_histogram_agrees_with_the_slides(levels):
    x = np.abs(np.random.default_rng(0).laplace(size=50_000))
    counts = np.histogram(x, 2048, (0, x.max()))[0]
    stop = np.array([levels, 300, 777, 1024, 1500, 2047, 2048])
    check(counts, 0 * stop, stop, levels)


def test_almost_empty_histograms_agree_with_the_slides():
    # The shift of smoothing is largest, 0.2 of a count, if one bin of 2048 is filled.
    counts = np.zeros(2048)
    counts[-1] = 1
    check(counts, [0, 0], [2047, 2048], 128)
    counts[3] = 1
    check(counts, [0, 0, 0], [128, 2047, 2048], 128)


def test_an_even_histogram_loses_nothing_where_the_groups_are_even():
    stop = np.array([128, 2048])
    found = divergences(np.full(2048, 7.0), 0 * stop, stop, 128)
    assert found[1] == pytest.approx(0, abs=1e-13)
    assert found[0] > 1


def test_a_range_without_counts_loses_all():
    found = divergences(np.array([0, 0, 0, 0, 5.0]), np.array([0]), np.array([4]), 2)
    assert found.tolist() == [np.inf]
