"""The Pareto front: what its members and the others have to be."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from ptq.search.pareto import dominates, pareto_front

#: Small whole numbers, so that ties and equal points are common.
POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


@given(POINTS)
def test_no_point_dominates_a_member_and_a_member_dominates_each_of_the_others(points):
    front = pareto_front(points)
    assert front
    for i, point in enumerate(points):
        by_members = any(dominates(points[k], point) for k in front)
        assert by_members == (i not in front)
        assert any(dominates(other, point) for other in points) == (i not in front)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = pareto_front([points[i] for i in order])
    assert sorted(order[k] for k in shuffled) == list(pareto_front(points))


@given(POINTS)
def test_the_front_depends_on_the_order_of_the_figures_only(points):
    cubed = [tuple(x**3 - 7 for x in point) for point in points]
    assert pareto_front(cubed) == pareto_front(points)


def test_in_one_dimension_it_is_the_least():
    values = np.random.default_rng(0).integers(0, 5, size=30)
    least = np.flatnonzero(values == values.min())
    assert pareto_front([(int(v),) for v in values]) == tuple(least)
