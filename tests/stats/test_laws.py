"""What every statistic promises: the sum depends on the values, not on how they were cut."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.errors import CalibrationError
from ptq.stats.base import TensorStats
from ptq.stats.ema import EmaMinMax
from ptq.stats.histogram import Histogram
from ptq.stats.minmax import MinMax

EXACT = [MinMax, Histogram]
STATS = [*EXACT, EmaMinMax]

#: Every magnitude of float32, and enough of equal and of ordinary values.
VALUES = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-8, 8, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 6.0, 4096.0, 1e-45, -1e-45]),
)
BATCH = hnp.arrays(np.float32, st.integers(0, 20), elements=VALUES)
BATCHES = st.lists(BATCH, min_size=1, max_size=6)


def same(a, b):
    return type(a) is type(b) and all(
        x.tobytes() == y.tobytes()
        for x, y in zip(a.arrays().values(), b.arrays().values(), strict=True)
    )


@pytest.mark.parametrize("stat", EXACT)
@given(batches=BATCHES, data=st.data())
def test_the_sum_depends_only_on_the_values(stat, batches, data):
    whole = stat.of(np.concatenate(batches))
    parts = [stat.of(batch) for batch in data.draw(st.permutations(batches))]
    assert same(reduce(add, parts), whole)


@pytest.mark.parametrize("stat", EXACT)
@given(a=BATCH, b=BATCH, c=BATCH)
def test_the_sum_is_associative_and_commutative_to_the_bit(stat, a, b, c):
    a, b, c = stat.of(a), stat.of(b), stat.of(c)
    assert same((a + b) + c, a + (b + c))
    assert same(a + b, b + a)


@pytest.mark.parametrize("stat", STATS)
@given(x=BATCH)
def test_an_empty_array_adds_nothing(stat, x):
    empty = stat.of(np.zeros((0, 3), np.float32))
    assert same(stat.of(x) + empty, stat.of(x))
    assert same(empty + stat.of(x), stat.of(x))


@pytest.mark.parametrize("stat", STATS)
@given(x=BATCH)
def test_arrays_hold_all(stat, x):
    summary = stat.of(x)
    again = stat.from_arrays(summary.arrays())
    assert again == summary
    assert same(again, summary)


@pytest.mark.parametrize("stat", [*STATS, TensorStats])
def test_shape_and_strides_do_not_matter(stat):
    x = np.random.default_rng(0).standard_normal((4, 6, 5)).astype(np.float32)
    assert stat.of(x) == stat.of(x.ravel())
    assert stat.of(x.transpose(2, 0, 1)) == stat.of(x)
    assert stat.of(x[:, ::2]) == stat.of(x[:, ::2].copy())
    assert stat.of(x[0, 0, 0]) == stat.of(x[:1, :1, :1])


@pytest.mark.parametrize("stat", [*STATS, TensorStats])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(stat, bad):
    x = np.ones(100, np.float32)
    x[37] = bad
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        stat.of(x)


@given(batches=BATCHES)
def test_tensor_stats_are_the_stats_of_the_tensor(batches):
    whole = reduce(add, [TensorStats.of(batch, decay=0.9) for batch in batches])
    assert whole.minmax == MinMax.of(np.concatenate(batches))
    assert whole.hist == Histogram.of(np.concatenate(batches))
    assert whole.ema == reduce(add, [EmaMinMax.of(batch, 0.9) for batch in batches])
