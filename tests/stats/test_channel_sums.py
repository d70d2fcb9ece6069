"""Sums of channels: what is added up is what was summed at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ptq.errors import CalibrationError
from ptq.stats.channel_sums import ChannelSums


@given(
    x=arrays.arrays(np.float32, (9, 3), elements=st.floats(-1e6, 1e6, width=32)),
    at=st.integers(0, 9),
)
def test_the_mean_is_that_of_all_values(x, at):
    x = x.astype(np.float64)
    parts = [ChannelSums.of(part.sum(axis=0), len(part)) for part in (x[:at], x[at:])]
    # float64 sums of nine values of at most 1e6
    np.testing.assert_allclose((parts[0] + parts[1]).mean(), x.mean(axis=0), atol=1e-8)
    np.testing.assert_array_equal((parts[1] + parts[0]).sums, (parts[0] + parts[1]).sums)


def test_nothing_has_the_mean_zero():
    np.testing.assert_array_equal(ChannelSums.of(np.zeros(2, np.float32), 0).mean(), [0.0, 0.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        ChannelSums.of(np.array([0.0, bad], np.float32), 1)
