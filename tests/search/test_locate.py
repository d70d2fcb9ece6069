"""Group testing of noise: exact with trials enough, and few of them where few parts matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.search.locate import locate

NOISE = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


def adding(noise):
    """Measure noise that adds up, and keep count."""
    asked = []

    def measure(groups):
        asked.extend(groups)
        return [float(noise[group.start : group.stop].sum()) for group in groups]

    return measure, asked


@given(NOISE)
def test_with_trials_enough_every_part_is_known(noise):
    found = locate(len(noise), adding(noise)[0], enough=0.0, trials=1000)
    np.testing.assert_allclose(found.noise, noise, atol=1e-12)


@given(NOISE, st.integers(1, 30), st.floats(0, 1))
def test_noise_is_neither_lost_nor_made(noise, trials, enough):
    measure, asked = adding(noise)
    found = locate(len(noise), measure, enough=enough, trials=trials)
    assert found.noise.sum() == pytest.approx(noise.sum())
    assert found.measured == len(asked) <= trials


def test_a_few_parts_of_many_take_few_trials():
    noise = np.full(256, 1e-6)
    noise[[3, 100, 101, 250]] = 1.0
    measure, asked = adding(noise)
    found = locate(256, measure, enough=0.01, trials=1000)
    assert set(np.flatnonzero(found.noise > 0.5)) == {3, 100, 101, 250}
    assert len(asked) <= 1 + 2 * 4 * 8  # both halves of at most 4 groups on each of 8 levels
