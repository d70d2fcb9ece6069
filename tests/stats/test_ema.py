from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.errors import CalibrationError
from ptq.stats.ema import EmaMinMax

DECAY = st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999])
ENDS = st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32)).map(sorted)
RUN = st.lists(ENDS, min_size=1, max_size=20)


def run(batches, decay):
    return [EmaMinMax.of(np.array(ends, np.float32), decay) for ends in batches]


@given(RUN, DECAY)
def test_the_sum_is_the_recurrence_of_the_paper(batches, decay):
    lo, hi = batches[0]
    for low, high in batches[1:]:
        lo, hi = decay * lo + (1 - decay) * low, decay * hi + (1 - decay) * high
    total = reduce(add, run(batches, decay))
    # Each of at most 20 steps rounds by 2^-53 of at most 1000.
    assert total.lo == pytest.approx(lo, abs=1e-11)
    assert total.hi == pytest.approx(hi, abs=1e-11)
    assert total.batches == len(batches)


@given(RUN, RUN, RUN, DECAY)
def test_the_sum_is_associative(a, b, c, decay):
    a, b, c = (reduce(add, run(batches, decay)) for batches in (a, b, c))
    left, right = (a + b) + c, a + (b + c)
    # Products of powers of the decay round by 2^-53; the differences they weigh are below 2000.
    assert left.lo == pytest.approx(right.lo, abs=1e-11)
    assert left.hi == pytest.approx(right.hi, abs=1e-11)
    assert left.batches == right.batches


@given(ENDS, st.integers(1, 50), DECAY)
def test_equal_batches_average_to_their_value_exactly(ends, count, decay):
    total = reduce(add, run([ends] * count, decay))
    assert [total.lo, total.hi] == ends


def test_the_order_matters():
    batches = [(-1, 1), (-5, 5)]
    assert reduce(add, run(batches, 0.9)) != reduce(add, run(batches[::-1], 0.9))


def test_averages_of_different_decay_do_not_add():
    with pytest.raises(CalibrationError, match="decay"):
        EmaMinMax.of_range(0, 1, 0.9) + EmaMinMax.of_range(0, 1, 0.99)
