"""The cheapest placement, against trying all of them."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.place.cut import Block, Boundary, cheapest_cut, cost_of

COSTS = st.floats(0, 5, allow_nan=False).map(lambda ms: round(ms, 3))


@st.composite
def graphs(draw):
    """Blocks that read graph inputs and one another, in order."""
    tensors, blocks = ["in0", "in1"], []
    for i in range(draw(st.integers(1, 7))):
        reads = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3))
        writes = [f"t{i}.{j}" for j in range(draw(st.integers(1, 2)))]
        blocks.append(
            Block(
                f"b{i}", draw(COSTS), draw(COSTS), tuple(reads), tuple(writes), draw(st.booleans())
            )
        )
        tensors += writes
    boundaries = {t: Boundary(draw(COSTS), draw(COSTS)) for t in tensors}
    return blocks, boundaries, frozenset(draw(st.sets(st.sampled_from(tensors))))


@given(graphs())
def test_no_placement_is_cheaper(graph):
    names = [b.name for b in graph[0]]
    every = (frozenset(c) for n in range(len(names) + 1) for c in combinations(names, n))
    least = min(cost_of(integer, *graph) for integer in every)
    # capacities are rounded to a nanosecond each
    assert cheapest_cut(*graph).ms == pytest.approx(least, abs=1e-4)


@given(graphs())
def test_the_cost_it_reports_is_that_of_its_placement(graph):
    cut = cheapest_cut(*graph)
    assert cut.ms == cost_of(cut.integer, *graph)


def test_a_chain_is_integer_as_a_whole_or_not_at_all():
    chain = [Block(f"b{i}", 1.0, 0.8, (f"t{i}",), (f"t{i + 1}",)) for i in range(5)]
    boundaries = {f"t{i}": Boundary(0.4, 0.4) for i in range(6)}
    ends = frozenset({"t5"})
    assert len(cheapest_cut(chain, boundaries, ends).integer) == 5
    assert not cheapest_cut(chain[:3], {**boundaries}, frozenset({"t3"})).integer


def test_a_tensor_is_converted_once_for_all_its_readers():
    readers = [Block(f"b{i}", 1.0, 0.5, ("x",), (f"y{i}",), dequantizes=True) for i in range(3)]
    boundaries = {"x": Boundary(1.2, 9.0), **{f"y{i}": Boundary(9.0, 9.0) for i in range(3)}}
    cut = cheapest_cut(readers, boundaries, frozenset({"y0", "y1", "y2"}))
    assert len(cut.integer) == 3
    assert cut.ms == pytest.approx(3 * 0.5 + 1.2)


def test_costs_of_hours_do_not_overflow():
    blocks = [Block("b", 4e6, 1e6, ("x",), ("y",))]
    cut = cheapest_cut(blocks, {"x": Boundary(1.0, 1.0), "y": Boundary(1.0, 1.0)}, frozenset("y"))
    assert cut.integer == {"b"}


def test_nothing_to_place():
    assert cheapest_cut([], {}, frozenset()).integer == frozenset()
