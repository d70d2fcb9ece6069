"""Output errors by sample, against the definition."""

import math

import numpy as np
import pytest

from ptq.errors import VerificationError
from ptq.search.output_error import output_errors, output_signals

RNG = np.random.default_rng(0)
WANTED = [[RNG.normal(size=(2, 3)).astype(np.float32), np.arange(4)] for _ in range(3)]
FOUND = [[y + np.float32(0.1) * i, labels + 7] for i, (y, labels) in enumerate(WANTED)]


def test_the_error_of_a_sample_is_relative_to_its_signal():
    errors = output_errors(WANTED, FOUND, output_signals(WANTED))
    for error, (wanted, _), (found, _) in zip(errors, WANTED, FOUND, strict=True):
        noise = np.sum((wanted.astype(np.float64) - found) ** 2)
        assert error == pytest.approx(noise / np.sum(wanted.astype(np.float64) ** 2))


def test_integer_outputs_do_not_count_and_cannot_be_all():
    assert output_errors(WANTED, FOUND, output_signals(WANTED))[0] == 0
    with pytest.raises(VerificationError, match="no floating-point output"):
        output_signals([[np.arange(3)]])


def test_beyond_the_limit_there_is_no_error_and_nothing_more_is_run():
    signals = output_signals(WANTED)
    errors = output_errors(WANTED, FOUND, signals)
    assert output_errors(WANTED, FOUND, signals, limit=errors.sum() * 1.01) is not None
    found = iter(FOUND)
    assert output_errors(WANTED, found, signals, limit=errors[1] / 2) is None
    assert len(list(found)) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_or_of_another_shape_has_no_error(value):
    signals = output_signals(WANTED)
    broken = [[np.full((2, 3), value, np.float32), labels] for _, labels in FOUND]
    assert output_errors(WANTED, broken, signals) is None
    longer = [[np.zeros((3, 3), np.float32), labels] for _, labels in FOUND]
    assert output_errors(WANTED, longer, signals) is None


def test_infinities_of_the_float_model_do_not_count():
    masked = [[np.where(y > 0, y, -np.inf).astype(np.float32), labels] for y, labels in WANTED]
    errors = output_errors(masked, masked, output_signals(masked))
    np.testing.assert_array_equal(errors, 0)


def test_a_sample_without_signal_is_measured_by_the_mean_of_all():
    zero = [[np.zeros((2, 3), np.float32)], [np.ones((2, 3), np.float32)]]
    np.testing.assert_array_equal(output_signals(zero), [3, 6])
    np.testing.assert_array_equal(output_signals(zero[:1]), [1])
