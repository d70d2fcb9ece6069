import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.levels import VECTORS, WORKED, distributed, relative_error, values_of

from ptq.weights import weight_quantizer

ROW = hnp.arrays(
    np.float32, st.tuples(st.just(1), st.integers(1, 7)), elements=st.floats(-4, 4, width=32)
)


def least_error(sides):
    """Return the least squared error over all thresholds of each part of the magnitudes."""
    lost = 0.0
    for magnitudes in sides:
        kept = [magnitudes[magnitudes >= limit] for limit in magnitudes]
        gains = [k.sum() ** 2 / k.size for k in kept]
        lost += np.sum(magnitudes**2) - max(gains, default=0.0)
    return lost


@settings(max_examples=25)
@given(ROW)
def test_twn_has_the_least_error_over_all_thresholds(rows):
    found = weight_quantizer("twn").codebook(rows, 2)
    error = np.sum((values_of(found) - rows) ** 2)
    # of sums of squares up to 7 * 16
    assert error == pytest.approx(least_error([np.abs(rows[0].astype(np.float64))]), abs=1e-12)


@settings(max_examples=25)
@given(ROW)
def test_ttq_has_the_least_error_over_all_pairs_of_thresholds(rows):
    found = weight_quantizer("ttq").codebook(rows, 2)
    error = np.sum((values_of(found) - rows) ** 2)
    exact = rows[0].astype(np.float64)
    assert error == pytest.approx(least_error([exact[exact > 0], -exact[exact < 0]]), abs=1e-12)


@settings(max_examples=25)
@given(ROW)
def test_half_the_magnitude_parts_what_is_kept_from_what_is_not(rows):
    found = weight_quantizer("twn").codebook(rows, 2)
    kept = values_of(found) != 0
    magnitudes = np.abs(rows.astype(np.float64))
    half = found.levels[0, 2] / 2
    assert np.all(magnitudes[kept] >= half)
    assert np.all(magnitudes[~kept] <= half)


@pytest.mark.parametrize("threshold", ["exact", "rule"])
def test_twn_of_the_worked_example(threshold):
    found = weight_quantizer("twn", threshold=threshold).codebook(WORKED, 2)
    assert found.levels[0, 2] == pytest.approx(VECTORS["twn_rule0.7"]["alpha"], rel=1e-7)
    assert np.sum(found.index != 1) == VECTORS["twn_exact"]["keep"]
    mse = np.mean((values_of(found) - WORKED) ** 2)
    assert mse == pytest.approx(VECTORS["twn_exact"]["mse"], rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "share", "error"),
    [("normal", 0.7670, 0.1902), ("laplace", 1.0, 0.2642), ("uniform", 0.6667, 0.1111)],
)
def test_twn_has_the_threshold_and_error_of_each_distribution(kind, share, error):
    rows = distributed(kind)
    found = weight_quantizer("twn").codebook(rows, 2)
    # the threshold is half of the magnitude: for normal weights 0.6120 and 1.2240 deviations
    threshold = found.levels[0, 2] / 2
    # the least is flat, and quantiles are 1e-4 apart
    assert threshold / np.abs(rows).mean(dtype=np.float64) == pytest.approx(share, rel=2e-3)
    assert relative_error(rows, found) == pytest.approx(error, abs=2e-4)


def test_the_rule_of_twn_is_near_the_best_for_normal_weights():
    rows = distributed("normal")
    found = weight_quantizer("twn", threshold="rule").codebook(rows, 2)
    assert relative_error(rows, found) == pytest.approx(0.19163, abs=1e-4)


def test_ttq_by_the_threshold_of_the_paper_has_the_means_beyond():
    rows = np.array([[-8.0, -0.5, -0.3, 0.1, 0.39, 0.5, 2.0]], np.float32)
    found = weight_quantizer("ttq", t=0.05).codebook(rows, 2)
    # beyond 0.05 * 8 = 0.4
    assert found.levels[0] == pytest.approx([-4.25, 0.0, 1.25])
    assert found.index[0].tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert weight_quantizer("ttq").codebook(rows, 2).levels[0] == pytest.approx([-8, 0, 2])


def test_two_magnitudes_are_no_worse_than_one():
    rows = np.random.default_rng(0).gamma(0.7, size=(20, 50)).astype(np.float32)
    rows *= np.random.default_rng(1).choice([-1, 0.4], size=rows.shape).astype(np.float32)
    one, two = (weight_quantizer(name).codebook(rows, 2) for name in ("twn", "ttq"))
    assert relative_error(rows, two) < 0.9 * relative_error(rows, one)
