"""Cutting evaluation data in two."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from ptq.data import open_dataset
from ptq.data.feeds import InputSpec
from ptq.data.split import LEAST, halves, split_in_halves
from ptq.errors import DataError

INPUTS = (InputSpec("x", np.dtype(np.float32), (1, 2)),)


@given(st.integers(0, 60), st.integers(0, 5))
def test_the_halves_are_disjoint_ordered_and_all(count, seed):
    positions = [3 * i + 1 for i in range(count)]
    first, second = halves(positions, seed)
    assert sorted((*first, *second)) == positions
    assert list(first) == sorted(first)
    assert list(second) == sorted(second)
    assert len(first) - len(second) == count % 2
    assert halves(positions, seed) == (first, second)


@given(st.integers(1, 60), st.integers(0, 5))
def test_neighbours_go_to_either_side(pairs, seed):
    first, second = halves(range(2 * pairs), seed)
    assert [i // 2 for i in first] == [i // 2 for i in second] == list(range(pairs))


def test_another_seed_cuts_otherwise():
    assert halves(range(40), 0) != halves(range(40), 1)


def opened(path, count):
    np.savez(path, x=np.arange(2 * count, dtype=np.float32).reshape(count, 2))
    return [open_dataset(str(path), INPUTS) for _ in range(2)]


def test_two_data_sets_then_give_different_samples(tmp_path):
    data, again = opened(tmp_path / "x.npz", 11)
    split_in_halves(data, again, seed=0)
    values = [[float(feed["x"][0, 0]) for feed in part] for part in (data, again)]
    assert sorted(values[0] + values[1]) == [2.0 * i for i in range(11)]
    assert [len(v) for v in values] == [6, 5]


def test_too_few_samples_are_refused(tmp_path):
    with pytest.raises(DataError, match="--report-data"):
        split_in_halves(*opened(tmp_path / "x.npz", LEAST - 1), seed=0)


def test_what_can_only_be_read_from_its_start_is_refused(tmp_path):
    data, again = opened(tmp_path / "x.npz", 20)
    data.positions = None
    with pytest.raises(DataError, match="--report-data"):
        split_in_halves(data, again, seed=0)
