"""LAPQ on made-up measurements of which the optimum is known."""

import math

import numpy as np
import pytest

from ptq.calib import parse_method
from ptq.errors import CalibrationError
from ptq.search.lapq import NORMS, directions, least_of_parabola, method_of, search_lapq

SAMPLES = 16


class Bowl:
    """The SQNR of every sample falls with the squares of how far all are from their best.

    Args:
        norm: the best norm.
        octaves: by tensor, binary logarithm of its best factor.
        unseen: what the factors do to samples of odd numbers: as to the others, or the contrary.
    """

    def __init__(self, norm=2.8, octaves=(), unseen=1.0):
        self.norm, self.unseen = norm, unseen
        self.octaves = {f"t{i}": o for i, o in enumerate(octaves)}
        self.calls = []

    def measure(self, method, tensors, limit, samples):
        self.calls.append(samples)
        found = parse_method(method)
        factors = {t: math.log2(parse_method(m).factor) for t, m in tensors.items()}
        db = 40 - 3 * (found.norm - self.norm) ** 2
        off = sum((factors.get(t, 0.0) - o) ** 2 - o**2 for t, o in self.octaves.items())
        decibels = db - 4 * off * np.where(np.arange(SAMPLES) % 2, self.unseen, 1.0)
        errors = 10 ** (-(decibels + 0.1 * np.cos(np.arange(SAMPLES))) / 10)
        return errors if samples is None else errors[list(samples)]

    def search(self, trials=400):
        return search_lapq(
            lambda _: list(self.octaves), self.measure, samples=SAMPLES, trials=trials
        )


@pytest.mark.parametrize("norm", [2.3, 2.8, 3.3])
def test_the_vertex_of_the_parabola_is_tried_and_taken(norm):
    found = Bowl(norm).search()
    assert found.method == method_of(norm)
    assert found.sqnr_db.keys() == {*map(method_of, NORMS), found.method}
    assert found.best_db == max(found.sqnr_db.values()) == found.sqnr_db[found.method]


@pytest.mark.parametrize("norm", [1.0, 2.0, 5.0])
def test_where_no_vertex_is_inside_the_best_norm_is_taken(norm):
    found = Bowl(norm).search()
    assert found.method == method_of(min(max(norm, 2.0), 4.0))
    assert len(found.sqnr_db) == len(NORMS)


def test_powells_method_finds_the_factors_of_a_separable_bowl():
    octaves = (0.5, -0.4, 0.2, -0.8, 0.6)
    found = Bowl(octaves=octaves).search(trials=600)
    for tensor, best in enumerate(octaves):
        factor = parse_method(found.tensors[f"t{tensor}"]).factor
        assert math.log2(factor) == pytest.approx(best, abs=0.05)
    # 4 dB an octave squared, of each
    gained = 4 * sum(o**2 for o in octaves)
    assert found.best_db - found.sqnr_db[found.method] == pytest.approx(gained, abs=0.1)


def test_what_does_not_help_on_samples_it_has_not_seen_is_not_kept():
    found = Bowl(octaves=(0.5, 0.5), unseen=-1.0).search()
    assert found.trials > 0
    assert found.tensors == {}
    assert found.best_db == found.sqnr_db[found.method]


@pytest.mark.parametrize("trials", [0, 10, 30])
def test_trials_are_bounded_and_see_half_of_the_samples(trials):
    bowl = Bowl(octaves=(0.5, -0.5, 0.3))
    found = bowl.search(trials)
    halves = [list(s) for s in bowl.calls if s is not None]
    assert found.trials == sum(s[0] == 0 for s in halves) <= trials + 2  # a line ends where it ends
    assert len(bowl.calls) <= len(NORMS) + 1 + found.trials + 1


def test_the_same_measurements_give_the_same_answer():
    once, again = (Bowl(octaves=(0.5, -0.4, 0.2)).search() for _ in range(2))
    assert once == again


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_directions_are_orthogonal_and_begin_with_all(count):
    found = directions(count)
    assert found.shape == (count, count)
    np.testing.assert_array_equal(found[0], 1)
    products = found @ found.T
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-12)
    assert np.all(np.diag(products) > 0)


def test_a_parabola_has_no_least_point_where_it_opens_downwards():
    assert least_of_parabola([2, 3, 4], [1, 2, 1]) is None
    assert least_of_parabola([2, 3, 4], [2.25, 0.25, 0.25]) == pytest.approx(3.5)
    assert least_of_parabola([2, 3], [1, 2]) is None


def test_norms_that_cannot_be_measured_are_left_out_and_all_are_an_error():
    bowl = Bowl(2.0)

    def measure(method, tensors, limit, samples):
        return None if "2.5" in method else bowl.measure(method, tensors, limit, samples)

    found = search_lapq(lambda _: [], measure, samples=SAMPLES, trials=0)
    assert method_of(2.5) not in found.sqnr_db
    with pytest.raises(CalibrationError, match="name a method, as --calib mse"):
        search_lapq(lambda _: [], lambda *_: None, samples=SAMPLES, trials=0)
