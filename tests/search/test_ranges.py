"""The choice of range methods by the output error, on made-up measurements."""

import itertools
import math

import numpy as np
import pytest

from ptq.calib import Range
from ptq.errors import CalibrationError
from ptq.search.output_error import mean_db
from ptq.search.ranges import LEAST_SAMPLES, search_ranges

SAMPLES = 8
WIDTHS = {"wide": 8.0, "middle": 4.0, "narrow": 1.0}
TENSORS = tuple(f"t{i}" for i in range(6))


def some(errors, samples):
    """Return the errors of these samples, or of all."""
    return np.array(errors) if samples is None else np.array(errors)[list(samples)]


class Network:
    """Every tensor multiplies the error of each sample by what its width costs there.

    Args:
        costs: by tensor, the cost of each method.
        noise: spread of what the samples differ by, of each tensor and method.
    """

    def __init__(self, costs, noise=0.0, samples=SAMPLES):
        self.costs, self.samples, self.calls = costs, samples, []
        rng = np.random.default_rng(0)
        keys = sorted(itertools.product(costs, WIDTHS))
        self.noise = {key: noise * rng.standard_normal(samples) for key in keys}

    def measure(self, method, tensors, limit, samples=None):
        self.calls.append((method, dict(tensors)))
        chosen = {t: tensors.get(t, method) for t in self.costs}
        costs = sum(self.costs[t][m] + self.noise[t, m] for t, m in chosen.items())
        errors = np.full(self.samples, 1e-3) * 10 ** (costs / 10)
        errors = some(errors, samples)
        return None if errors.sum() > limit else errors

    def sqnr_db(self, method, tensors):
        return mean_db(self.measure(method, tensors, math.inf))

    def search(self, trials=60, methods=tuple(WIDTHS)):
        return search_ranges(
            methods, self.ranges, self.measure, samples=self.samples, trials=trials
        )

    def ranges(self, method):
        # widths differ by tensor, so that none are taken for one
        return {t: Range(-WIDTHS[method] * (i + 1), 0.0) for i, t in enumerate(self.costs)}


def costs(*favourites):
    """Each tensor likes one method; the second best costs little more."""
    order = list(WIDTHS)
    return {
        t: {m: 1.0 + abs(order.index(m) - order.index(f)) for m in order}
        for t, f in zip(TENSORS, favourites, strict=False)
    }


def test_the_method_of_least_error_is_taken():
    network = Network(costs(*["middle"] * 6))
    found = network.search()
    assert (found.method, found.tensors) == ("middle", {})
    assert found.sqnr_db == pytest.approx({m: network.sqnr_db(m, {}) for m in WIDTHS})
    assert found.samples == {"wide": 4, "middle": SAMPLES, "narrow": 4}
    assert found.best_db == found.sqnr_db["middle"] == pytest.approx(24)


def test_of_equal_methods_the_first_is_taken():
    network = Network({t: dict.fromkeys(WIDTHS, 1.0) for t in TENSORS})
    assert network.search().method == "wide"
    assert network.search(methods=("narrow", "wide")).method == "narrow"


@pytest.mark.parametrize("favourites", list(itertools.product(WIDTHS, repeat=6))[::37])
def test_tensors_that_like_another_method_get_it(favourites):
    network = Network(costs(*favourites))
    found = network.search(trials=200)
    given = {t: found.tensors.get(t, found.method) for t in TENSORS}
    assert found.best_db == network.sqnr_db(found.method, found.tensors)
    # it gives up after a number of changes in vain, and may leave a tensor or two
    liked = sum(given[t] == f for t, f in zip(TENSORS, favourites, strict=True))
    assert liked >= max(4, favourites.count(found.method))
    assert found.best_db >= max(found.sqnr_db.values())


def test_a_gain_that_is_not_certain_is_left():
    favourites = ["middle"] * 5 + ["wide"]
    certain, doubtful = Network(costs(*favourites)), Network(costs(*favourites), noise=4.0)
    assert certain.search().tensors == {"t5": "wide"}
    found = doubtful.search(methods=("middle", "wide"), trials=3)
    gains = np.log10(
        doubtful.measure(found.method, {}, math.inf)
        / doubtful.measure(found.method, {"t5": "wide"}, math.inf)
    )
    assert gains.mean() < 2 * gains.std(ddof=1) / math.sqrt(SAMPLES)
    assert found.method == "middle"
    assert found.tensors == {}


def test_one_sample_does_not_decide():
    """Of seven samples, one is far worse with what is better for the six."""
    six = {"wide": 1e-3, "narrow": 2e-3}

    def measure(method, tensors, limit, samples):
        return some([six[method]] * 6 + [{"wide": 1e-1, "narrow": 5e-2}[method]], samples)

    found = search_ranges(("narrow", "wide"), lambda m: {}, measure, samples=7, trials=0)
    assert found.method == "wide"


def test_samples_that_are_exact_do_not_decide():
    def measure(method, tensors, limit, samples):
        return some({"a": [1e-3, 1e-3, 0.0], "b": [2e-3, 2e-3, 0.0]}[method], samples)

    found = search_ranges(("b", "a"), lambda m: {}, measure, samples=3, trials=0)
    assert found.method == "a"
    assert found.best_db == pytest.approx((30 + 30 + 60) / 3)


def test_the_result_is_never_worse_than_its_method_nor_by_a_db_than_the_best():
    for seed_noise in (0.1, 1.0, 3.0):
        network = Network(costs("wide", "narrow", "middle", "wide"), noise=seed_noise)
        found = network.search()
        assert found.best_db >= max(found.sqnr_db[found.method], max(found.sqnr_db.values()) - 1)


@pytest.mark.parametrize("trials", [0, 1, 5])
def test_trials_are_bounded(trials):
    network = Network(costs("wide", "narrow", "middle", "wide", "narrow", "middle"))
    steps = []
    found = search_ranges(
        tuple(WIDTHS),
        network.ranges,
        network.measure,
        samples=SAMPLES,
        trials=trials,
        on_trial=lambda: steps.append(1),
    )
    assert found.trials <= trials
    assert len(steps) == len(WIDTHS) + found.trials
    again = sum(count == SAMPLES for count in found.samples.values())
    assert len(network.calls) == len(steps) + again


def test_few_samples_choose_a_method_and_no_more():
    network = Network(costs(*["middle"] * 5, "wide"), samples=LEAST_SAMPLES - 1)
    found = network.search()
    assert (found.method, found.tensors, found.trials) == ("middle", {}, 0)


def test_it_gives_up_when_nothing_helps():
    many = {f"t{i}": {"wide": 1.0, "middle": 3.0, "narrow": 3.0} for i in range(40)}
    found = Network(many).search(trials=1000)
    assert found.trials < 40


def test_a_method_that_cannot_be_compared_is_left_out():
    network = Network(costs(*["narrow"] * 6))

    def measure(method, tensors, limit, samples):
        return (
            None
            if "narrow" in (method, *tensors.values())
            else network.measure(method, tensors, limit, samples)
        )

    found = search_ranges(tuple(WIDTHS), network.ranges, measure, samples=SAMPLES, trials=10)
    assert found.method == "middle"
    assert found.sqnr_db["narrow"] is None
    assert "narrow" not in found.tensors.values()


def test_without_any_that_can_it_is_an_error():
    with pytest.raises(CalibrationError, match="name a method, as --calib mse"):
        search_ranges(tuple(WIDTHS), dict, lambda *_: None, samples=8, trials=10)


def test_what_fails_on_later_samples_is_left_out():
    def measure(method, tensors, limit, samples):
        return None if method == "a" and 7 in samples else some([1e-3] * 8, samples)

    found = search_ranges(("a", "b"), lambda m: {}, measure, samples=8, trials=0)
    assert found.method == "b"
    assert found.sqnr_db == {"a": None, "b": pytest.approx(30)}


def test_samples_that_disagree_rule_nothing_out():
    """One has 3 dB more on the first four, for one sample, and less on all."""
    errors = {"a": [1e-2] * 8, "b": [1e-2 * 10**-1.2] + [1e-2] * 6 + [1]}

    def measure(method, tensors, limit, samples):
        return some(errors[method], samples)

    found = search_ranges(("a", "b"), lambda m: {}, measure, samples=8, trials=0)
    assert found.samples == {"a": 8, "b": 8}
    assert found.method == "a"


@pytest.mark.parametrize(("spread", "expected"), [(0.1, "better"), (3.0, "first")])
def test_of_methods_that_cannot_be_told_apart_the_first_is_taken(spread, expected):
    """One has 0.5 dB more in the mean; whether that is more than noise depends on the spread."""
    noise = np.random.default_rng(0).standard_normal(16)
    noise -= noise.mean()
    gains = {"first": np.zeros(16), "better": 0.5 + spread * noise}

    def measure(method, tensors, limit, samples):
        return some(1e-3 * 10 ** (-gains[method] / 10), samples)

    found = search_ranges(("first", "better"), lambda m: {}, measure, samples=16, trials=0)
    assert found.method == expected
