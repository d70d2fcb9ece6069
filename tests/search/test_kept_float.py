"""Layers to leave in float, chosen by adding up and by measuring."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.search.kept_float import Known, best_of_count, fewest_for
from ptq.search.trials import Damage

DAMAGES = st.lists(st.integers(1, 1000).map(lambda n: n / 1024), min_size=2, max_size=7)


def additive(values):
    """A network in which noise adds up, as what is known of it and how it measures."""
    damages = {f"n{i}": v for i, v in enumerate(values)}
    return Known(sum(values), (damages, damages), dict.fromkeys(damages, ())), measures(damages)


def measures(damages):
    def measure(sets):
        return [
            Damage(noise=sum(d for name, d in damages.items() if name not in nodes))
            for nodes in sets
        ]

    return measure


@given(values=DAMAGES, data=st.data())
def test_where_noise_adds_up_no_choice_of_as_many_layers_is_better(values, data):
    known, measure = additive(values)
    count = data.draw(st.integers(1, len(values)))
    found = best_of_count(known, count, measure)
    assert len(found.nodes) == count
    sets = list(combinations(known.beside, count))
    assert found.measured.noise == min(d.noise for d in measure(sets))
    # sums of the same numbers in two orders
    assert found.predicted == pytest.approx(found.measured.noise, abs=1e-12)


@given(values=DAMAGES, share=st.floats(0, 1))
def test_where_noise_adds_up_no_fewer_layers_are_enough(values, share):
    known, measure = additive(values)
    limit = share * known.total
    found = fewest_for(known, limit, measure)
    assert found.measured.noise <= limit
    for count in range(len(found.nodes)):
        assert all(d.noise > limit for d in measure(list(combinations(known.beside, count))))


def pair():
    """Two layers between which a bad tensor lies: only both in float are of use."""
    names = [f"n{i}" for i in range(20)]
    figures = dict.fromkeys(names, 0.01) | {"n7": 0.02, "n8": 0.0}
    beside = dict.fromkeys(names, ()) | {"n7": ("n8",), "n8": ("n7",)}

    def measure(sets):
        return [
            Damage(noise=1.0 - 0.01 * len(nodes) - (0.7 if {"n7", "n8"} <= {*nodes} else 0.0))
            for nodes in sets
        ]

    return Known(1.0, (figures, figures), beside), measure


def test_two_layers_with_a_bad_tensor_between_them_are_found():
    known, measure = pair()
    assert {"n7", "n8"} <= {*best_of_count(known, 3, measure).nodes}
    found = fewest_for(known, 0.3, measure)
    assert found.measured.noise <= 0.3
    assert len(found.nodes) <= 3
    assert found.predicted > found.measured.noise


def test_more_layers_than_there_are_are_all_of_them():
    known, measure = additive([0.5, 0.25])
    assert sorted(best_of_count(known, 9, measure).nodes) == ["n0", "n1"]


def test_fewer_layers_are_chosen_where_more_are_worse():
    known, _ = additive([0.5, 0.25, 0.125])
    noise = {0: 1.0, 1: 0.25, 2: 0.5, 3: 0.75}
    found = best_of_count(known, 3, lambda sets: [Damage(noise=noise[len(s)]) for s in sets])
    assert len(found.nodes) == 1


def test_what_cannot_be_reached_is_as_good_as_it_gets():
    known, _ = additive([0.5, 0.25])
    found = fewest_for(known, 0.1, lambda sets: [Damage(noise=1 - len(s) / 4) for s in sets])
    assert found.measured.noise == 0.5
    assert len(found.nodes) == 2


def test_many_layers_are_chosen_with_a_bounded_number_of_measurements():
    known, measure = additive([1 / (i + 1) for i in range(60)])
    asked = []

    def counted(sets):
        asked.extend(sets)
        return measure(sets)

    found = best_of_count(known, 40, counted)
    assert found.nodes == tuple(f"n{i}" for i in range(40))
    assert len(asked) < 120
