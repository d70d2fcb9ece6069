import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.calib import solver
from ptq.numerics.qtype import UINT8
from ptq.stats.base import TensorStats

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(100_000).astype(np.float32)
SAMPLES = {"normal": NORMAL, "relu": np.maximum(NORMAL, 0), "negative": np.minimum(NORMAL, 0)}

every_sample = pytest.mark.parametrize("x", SAMPLES.values(), ids=SAMPLES)


def solve(x, coverage, symmetric=False):
    method = solver("percentile", coverage=coverage)
    return method.solve(TensorStats.of(x), UINT8, symmetric=symmetric)


@every_sample
@pytest.mark.parametrize("symmetric", [True, False])
def test_all_is_minmax(x, symmetric):
    found = solve(x, 100.0, symmetric)
    assert (found.lo, found.hi) == (min(x.min(), 0), max(x.max(), 0))


@every_sample
@given(st.floats(51, 100), st.floats(51, 100), st.booleans())
def test_more_coverage_is_a_wider_range(x, a, b, symmetric):
    less, more = (solve(x, c, symmetric) for c in sorted((a, b)))
    assert more.lo <= less.lo
    assert less.hi <= more.hi


@pytest.mark.parametrize("coverage", [90.0, 99.0, 99.9, 99.99])
def test_percentiles_are_numpy_s_within_a_bin(coverage):
    # One bin of 1/4096 at the least of the largest value, and the gap between two values there.
    def close(value):
        return pytest.approx(value, abs=TensorStats.of(NORMAL).hist.width + 1e-2)

    relu = SAMPLES["relu"]
    assert solve(relu, coverage).hi == close(np.percentile(relu, coverage))
    assert solve(-relu, coverage).lo == close(np.percentile(-relu, 100 - coverage))
    assert solve(NORMAL, coverage, symmetric=True).hi == close(
        np.percentile(np.abs(NORMAL), coverage)
    )
    tail = (100 - coverage) / 2
    both = solve(NORMAL, coverage)
    assert both.lo == close(np.percentile(NORMAL, tail))
    assert both.hi == close(np.percentile(NORMAL, 100 - tail))


def test_zeros_count():
    x = np.concatenate([np.zeros(900, np.float32), np.arange(1, 101, dtype=np.float32)])
    assert solve(x, 95.0).hi == pytest.approx(50, abs=1.1)


def test_many_zeros_leave_nothing():
    x = np.zeros(1000, np.float32)
    x[0] = 1
    assert solve(x, 99.0).hi == 0
