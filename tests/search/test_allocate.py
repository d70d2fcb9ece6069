"""Widths are chosen exactly: against every combination."""

from itertools import product
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq.errors import ConfigError
from ptq.search.allocate import FLOAT, Choice, least_cost, least_damage

WIDTHS = (FLOAT, 16, 8, 4, 2)
CHOICE = st.builds(
    Choice,
    width=st.sampled_from(WIDTHS),
    # sixteenths: sums of them are exact, and differ by more than the solver's tolerance
    damage=st.integers(0, 200).map(lambda n: n / 16),
    cost=st.integers(0, 200).map(float),
)
LAYERS = st.lists(st.lists(CHOICE, min_size=1, max_size=4), min_size=1, max_size=5)


def totals(layers):
    for choices in product(*layers):
        yield fsum(c.damage for c in choices), fsum(c.cost for c in choices)


@settings(deadline=None)
@given(layers=LAYERS, share=st.floats(0, 1))
def test_no_combination_within_the_budget_does_less_damage(layers, share):
    costs = [cost for _, cost in totals(layers)]
    budget = min(costs) + share * (max(costs) - min(costs))
    found = least_damage(layers, budget)
    assert found.cost <= budget
    assert found.damage == min(d for d, c in totals(layers) if c <= budget)


@settings(deadline=None)
@given(layers=LAYERS, share=st.floats(0, 1))
def test_no_combination_within_the_limit_costs_less(layers, share):
    damages = [damage for damage, _ in totals(layers)]
    limit = min(damages) + share * (max(damages) - min(damages))
    found = least_cost(layers, limit)
    assert found.damage <= limit
    assert found.cost == min(c for d, c in totals(layers) if d <= limit)


def test_the_worked_example_of_three_layers():
    # ALGORITHMS F3: sizes 10, 50, 20 and a mean of 4 bits
    sizes = (10, 50, 20)
    damages = ({8: 0.01, 4: 0.5, 2: 4}, {8: 0.02, 4: 0.1, 2: 0.4}, {8: 0.005, 4: 0.8, 2: 9})
    layers = [
        [Choice(width, damage, size * width) for width, damage in of_layer.items()]
        for size, of_layer in zip(sizes, damages, strict=True)
    ]
    found = least_damage(layers, 4 * sum(sizes))
    assert found.widths == (4, 2, 8)
    assert found.damage == pytest.approx(0.905, abs=1e-12)


def test_damages_of_many_magnitudes_are_told_apart():
    layers = [[Choice(8, 10.0**-i, 1), Choice(FLOAT, 0, 4)] for i in range(9)]
    assert least_damage(layers, 9 + 3 * 3).widths == (FLOAT,) * 3 + (8,) * 6


def test_damage_that_a_bit_quarters_is_made_equal_everywhere():
    # of damages c 4^-b the sum is least where all are equal: b = mean + log2(c / geomean) / 2
    layers = [[Choice(b, 4.0 ** (best - b), b) for b in (2, 4, 8, 16)] for best in (2, 8, 4, 16)]
    assert least_damage(layers, 2 + 8 + 4 + 16).widths == (2, 8, 4, 16)


def test_what_cannot_be_met_says_what_could():
    layers = [[Choice(8, 0.5, 3), Choice(FLOAT, 0.0, 5)]] * 2
    with pytest.raises(ConfigError, match="the least is 6"):
        least_damage(layers, 5.9)
    with pytest.raises(ConfigError, match="at least one choice"):
        least_cost([[]], 1)
    with pytest.raises(ConfigError, match="0 or more"):
        Choice(8, -0.1, 1)
    with pytest.raises(ConfigError, match="9 bits"):
        Choice(9, 0.1, 1)


def test_no_layers_are_no_cost():
    assert least_damage([], 0).choices == ()
