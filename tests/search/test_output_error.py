"""The score of outputs, against the definition."""

import math

import numpy as np
import pytest

from ptq.errors import VerificationError
from ptq.search.output_error import OutputScore, mean_db

RNG = np.random.default_rng(0)
WANTED = [
    [RNG.normal(size=(2, 3)).astype(np.float32), np.arange(4), 1000 * RNG.normal(size=5)]
    for _ in range(3)
]
FOUND = [
    [y + np.float32(0.1) * i, labels + 7, z + 3 * i] for i, (y, labels, z) in enumerate(WANTED)
]
SCORE = OutputScore.of(WANTED)


def noise_over_signal(output):
    """Noise of one output in each sample, over the mean energy of that output in a sample."""
    wanted = [np.float64(sample[output]) for sample in WANTED]
    noise = [np.sum((w - f[output]) ** 2) for w, f in zip(wanted, FOUND, strict=True)]
    return np.array(noise) / np.mean([np.sum(w**2) for w in wanted])


def test_each_floating_output_counts_alike_relative_to_its_own_signal():
    expected = (noise_over_signal(0) + noise_over_signal(2)) / 2
    np.testing.assert_allclose(SCORE.errors(FOUND), expected, rtol=1e-12)


def test_the_unit_of_an_output_makes_no_difference():
    def scaled(samples):
        return [[y, labels, z / 4096] for y, labels, z in samples]

    found = OutputScore.of(scaled(WANTED)).errors(scaled(FOUND))
    np.testing.assert_allclose(found, SCORE.errors(FOUND), rtol=1e-12)


def test_integer_outputs_do_not_count_and_cannot_be_all():
    assert SCORE.errors(FOUND)[0] == 0
    with pytest.raises(VerificationError, match="no floating-point output"):
        OutputScore.of([[np.arange(3)]])


def test_beyond_the_limit_there_is_no_error_and_nothing_more_is_run():
    errors = SCORE.errors(FOUND)
    assert SCORE.errors(FOUND, limit=errors.sum() * 1.01) is not None
    found = iter(FOUND)
    assert SCORE.errors(found, limit=errors[1] / 2) is None
    assert len(list(found)) == 1


def test_of_all_samples_the_mean_in_db_counts_and_a_limit_ends_it():
    error = SCORE.error(FOUND)
    assert -10 * math.log10(error) == pytest.approx(mean_db(SCORE.errors(FOUND)))
    assert SCORE.error(FOUND, limit=error) == error
    far = [[y + 1e6, *rest] for y, *rest in FOUND]
    found = iter(far)
    assert SCORE.error(found, limit=error) == math.inf
    assert len(list(found)) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_or_of_another_shape_has_no_error(value):
    broken = [[np.full((2, 3), value, np.float32), *rest] for _, *rest in FOUND]
    assert SCORE.errors(broken) is None
    longer = [[np.zeros((3, 3), np.float32), *rest] for _, *rest in FOUND]
    assert SCORE.errors(longer) is None
    assert SCORE.error(longer) == math.inf


def test_infinities_of_the_float_model_do_not_count():
    masked = [[np.where(y > 0, y, -np.inf).astype(np.float32)] for y, *_ in WANTED]
    np.testing.assert_array_equal(OutputScore.of(masked).errors(masked), 0)


def test_an_output_without_signal_is_measured_by_the_mean_of_all():
    zero, one = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(OutputScore.of([[zero, one]]).signals, [3, 6])
    np.testing.assert_array_equal(OutputScore.of([[zero]]).signals, [1])


def test_of_the_mean_no_sample_counts_for_more_than_60_db():
    assert mean_db(np.array([0.0, 1e-2])) == pytest.approx((60 + 20) / 2)
