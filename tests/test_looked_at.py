"""The split of calibration samples into those to refine on and those to choose on."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ptq.looked_at import LookedAt


def _split(count: int) -> tuple[list[int], list[int]]:
    found = LookedAt.of([{"x": np.array(i)} for i in range(count)])
    one, other = found.refined_on, found.chosen_on
    return [int(f["x"]) for f in one], [int(f["x"]) for f in other]


@given(st.integers(8, 300))
def test_a_quarter_is_kept_out_and_no_sample_is_lost(count):
    refined_on, chosen_on = _split(count)
    assert len(chosen_on) == min(count // 4, 16)
    assert sorted(refined_on + chosen_on) == list(range(count))


def test_of_few_samples_none_is_kept_out():
    assert _split(7) == (list(range(7)), list(range(7)))


def test_the_kept_ones_are_spread_evenly():
    assert _split(64)[1] == list(range(0, 64, 4))
