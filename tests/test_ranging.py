"""Which samples a search over range methods measures on, and what it plans with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq.calib import Range, Solver, parse_method, solver
from ptq.data import open_dataset
from ptq.data.feeds import InputSpec
from ptq.numerics.qtype import UINT8
from ptq.plan.make import RangeChoice
from ptq.plan.request import Request
from ptq.ranging import CANDIDATES, Candidates, Part, Remembered, Split, searched
from ptq.report.ranges import range_line
from ptq.search.ranges import RangeResult
from ptq.stats.base import TensorStats


@given(count=st.integers(1, 1000))
def test_samples_are_chosen_on_or_solved_from_and_never_both(count):
    split = Split.of(count)
    for part in (split.chosen_on, split.solved_from):
        assert list(part) == sorted({*part})
        assert {*part} <= {*range(count)}
    assert 1 <= len(split.chosen_on) <= 16
    assert len(split.solved_from) <= 64
    if count >= 8:
        assert not {*split.chosen_on} & {*split.solved_from}
        assert len(split.solved_from) >= len(split.chosen_on) >= 4
    else:
        assert split.chosen_on == (*range(count),)
        assert not split.solved_from


def test_both_parts_are_spread_over_the_data():
    split = Split.of(100)
    for part in (split.chosen_on, split.solved_from):
        assert part[0] <= 6
        assert part[-1] >= 93
        assert np.diff(part).max() <= 7


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.arange(10, dtype=np.float32)[:, None])
    inputs = [InputSpec("x", np.dtype(np.float32), (None, 1))]
    return open_dataset(tmp_path / "data.npz", inputs)


def test_a_part_holds_the_samples_at_its_positions(data):
    part = Part(data, (7, 2, 3))
    assert [float(feed["x"].item()) for feed in part] == [2, 3, 7]
    assert part.expected == len(part) == 3
    assert part.source == data.source


def test_a_part_reads_no_further_than_its_last_sample(data):
    read = []

    class Watched(type(data)):
        def _feeds(self):
            for where, feed in super()._feeds():
                read.append(where)
                yield where, feed

    data.__class__ = Watched
    list(Part(data, (0, 4)))
    assert len(read) == 5


class Counting(Solver, frozen=True):
    """Counts how often it solves."""

    calls: list[int]

    def solve(self, stats, qtype, *, symmetric):
        self.calls.append(1)
        return solver("minmax").solve(stats, qtype, symmetric=symmetric)


def test_each_tensor_is_solved_once():
    counting = Counting(calls=[])
    remembered = Remembered(solver=counting)
    one, other = (TensorStats.of(np.float32([-1, end])) for end in (1, 2))
    found = [remembered.solve(s, UINT8, symmetric=False) for s in (one, other, one)]
    assert found == [Range(-1, 1), Range(-1, 2), Range(-1, 1)]
    assert len(counting.calls) == 2


def test_only_tensors_with_a_range_of_their_own_can_get_another():
    def choice_of(method):
        return RangeChoice(method, UINT8, symmetric=False)

    stats = {n: TensorStats.of(np.float32([-1, 0.5, 1])) for n in ("a", "b", "mine")}
    asked = [
        Request("a", observed="a"),
        Request("b", observed="b"),
        Request("mine", observed="mine"),
        Request("copy", observed="copy", copies="a"),
        Request("two", constant=(2.0, 2.0)),
        Request("both", joins=("a", "b")),
    ]
    mine = {"mine": choice_of(parse_method("minmax"))}
    measured = []

    def errors_of(decisions, limit, samples):
        measured.append((decisions, limit))

    candidates = Candidates(asked, stats, choice_of, mine, errors_of)
    assert candidates.ranges("minmax").keys() <= {"a", "b"}
    candidates.measure("minmax", {"a": "scale:shrink=0.5"}, 3.0)
    [(decisions, limit)] = measured
    assert limit == 3.0
    assert decisions["mine"].hi == pytest.approx(1.0)
    assert decisions.keys() == {r.tensor for r in asked}


def test_candidates_are_methods_of_ordinary_grids():
    methods = [parse_method(name) for name in CANDIDATES]
    assert len(set(CANDIDATES)) == len(CANDIDATES)
    assert not any(m.power_of_two or m.runs_network for m in methods)


@pytest.mark.parametrize("apart", [True, False])
def test_the_line_says_what_was_chosen_from_what(apart):
    result = RangeResult(
        "mse",
        {"t": "kl"},
        {"kl": 10.0, "mse": 20.0, "minmax": None},
        {"kl": 4, "mse": 12, "minmax": 12},
        23.01,
        9,
    )
    found = searched(result, apart=apart)
    line = range_line(found)
    assert line == (
        f"--calib auto chose mse: 20.0 dB on 12 {'held-out' if apart else 'calibration'} samples "
        "(kl 10.0 dB on 4; minmax -); with other ranges for 1 tensor, 23.0 dB after 9 trials"
    )
    assert found.sqnr_db == 23.01
