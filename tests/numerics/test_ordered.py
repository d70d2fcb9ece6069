import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptq.numerics.ordered import Ordered

# Few different values, so that many are equal and many lie on a limit.
VALUES = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0])


@st.composite
def cases(draw):
    rows, size, levels = draw(st.tuples(st.integers(1, 3), st.integers(0, 9), st.integers(1, 5)))
    values = draw(hnp.arrays(np.float32, (rows, size), elements=VALUES))
    return values, np.sort(draw(hnp.arrays(np.float64, (rows, levels), elements=VALUES)), axis=1)


@settings(max_examples=30)
@given(cases())
def test_counts_and_sums_are_those_of_the_values_nearest_to_each_level(case):
    values, levels = case
    counts, sums = Ordered.of(values).nearest(levels)
    middles = (levels[:, 1:] + levels[:, :-1]) / 2
    for row, middle, count, total in zip(values, middles, counts, sums, strict=True):
        index = np.sum(row[:, None] > middle, axis=1)
        assert count.tolist() == np.bincount(index, minlength=levels.shape[1]).tolist()
        # the values are multiples of a quarter: all sums are exact
        assert total.tolist() == np.bincount(index, row, levels.shape[1]).tolist()


@settings(max_examples=30)
@given(cases())
def test_the_error_is_that_of_the_nearest_level(case):
    values, levels = case
    away = np.abs(values[:, :, None] - levels[:, None]).min(axis=2)
    assert Ordered.of(values).error(levels).tolist() == np.sum(away**2, axis=1).tolist()


def test_some_of_the_rows_are_as_if_there_were_no_others():
    rows = np.random.default_rng(0).standard_normal((6, 40))
    levels = np.array([[-1.0, 0.0, 1.5]] * 2)
    some = Ordered.of(rows).some(np.array([4, 1]))
    assert some.error(levels).tolist() == Ordered.of(rows[[4, 1]]).error(levels).tolist()
    assert some.largest().tolist() == np.abs(rows[[4, 1]]).max(axis=1).tolist()
