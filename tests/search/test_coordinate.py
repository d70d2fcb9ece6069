"""The coordinate search on made-up measurements of which the optimum is known."""

import math

import numpy as np
import pytest

from ptq.calib import parse_method
from ptq.errors import CalibrationError
from ptq.ranging import clipped_by
from ptq.search.coordinate import search_coordinates

SAMPLES = 16


class Bowl:
    """The SQNR of every sample falls with the squares of how far all are from their best.

    Args:
        octaves: by tensor, binary logarithm of its best factor.
        unseen: what the factors do to samples of odd numbers: as to the others, or the contrary.
    """

    def __init__(self, octaves=(), unseen=1.0):
        self.unseen = unseen
        self.octaves = {f"t{i}": o for i, o in enumerate(octaves)}
        self.calls = []

    def measure(self, method, tensors, limit, samples):
        self.calls.append(samples)
        assert parse_method(method).factor == 1
        factors = {t: math.log2(parse_method(m).factor) for t, m in tensors.items()}
        off = sum((factors.get(t, 0.0) - o) ** 2 - o**2 for t, o in self.octaves.items())
        decibels = 30 - 4 * off * np.where(np.arange(SAMPLES) % 2, self.unseen, 1.0)
        errors = 10 ** (-(decibels + 0.1 * np.cos(np.arange(SAMPLES))) / 10)
        return errors if samples is None else errors[list(samples)]

    def search(self, trials=400):
        return search_coordinates(
            clipped_by, list(self.octaves), self.measure, samples=SAMPLES, trials=trials
        )


def test_it_finds_the_factors_of_a_separable_bowl():
    octaves = (0.5, -0.375, 0.25, -0.875, 0.0)
    found = Bowl(octaves).search()
    for tensor, best in enumerate(octaves):
        factor = parse_method(found.tensors.get(f"t{tensor}", "pact")).factor
        assert math.log2(factor) == pytest.approx(best, abs=1e-3)
    gained = 4 * sum(o**2 for o in octaves)
    assert found.best_db - found.sqnr_db["pact"] == pytest.approx(gained, abs=0.01)
    assert found.method == "pact"


def test_what_helps_half_of_the_samples_and_harms_the_others_is_not_kept():
    found = Bowl((0.5, 0.5), unseen=-1.0).search()
    assert found.trials > 0
    assert found.tensors == {}
    assert found.best_db == found.sqnr_db["pact"]


@pytest.mark.parametrize("trials", [0, 1, 5])
def test_trials_are_bounded(trials):
    bowl = Bowl((0.5, -0.5, 0.3))
    found = bowl.search(trials)
    assert found.trials == len(bowl.calls) - 1 <= trials


def test_what_cannot_be_measured_is_an_error():
    with pytest.raises(CalibrationError, match="as --calib mse"):
        search_coordinates(clipped_by, [], lambda *_: None, samples=SAMPLES, trials=0)
