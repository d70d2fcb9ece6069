"""The line on how it was chosen what becomes integer."""

import pytest

from ptq.report.placement import Candidate, Placement, placement_line

ALL = Candidate(name="all", integer_nodes=10, predicted_ms=2.0, measured_ms=2.5, ratio=0.8)
SOME = Candidate(name="cut", integer_nodes=7, predicted_ms=1.0, measured_ms=1.25, ratio=1.6)
NONE = Candidate(name="float", integer_nodes=0, measured_ms=2.0, ratio=1.0)


@pytest.mark.parametrize(
    ("mode", "chosen", "line"),
    [
        (
            "auto",
            "cut",
            "placement: 3 of 10 sites kept in float by measured cost (predicted 1.00 ms, measured "
            "1.25 ms; all-integer 2.50 ms)",
        ),
        (
            "auto",
            "all",
            "placement: all 10 sites integer by measured cost (predicted 2.00 ms, measured "
            "2.50 ms)",
        ),
        (
            "auto",
            "float",
            "placement: all of 10 sites kept in float by measured cost (measured 2.00 ms; "
            "all-integer 2.50 ms)",
        ),
        (
            "patterns",
            "cut",
            "placement: 3 of 10 sites kept in float by --place (predicted 1.00 ms, measured "
            "1.25 ms; all-integer 2.50 ms)",
        ),
    ],
)
def test_the_line_says_what_was_chosen_and_what_it_costs(mode, chosen, line):
    placement = Placement(mode=mode, candidates=(ALL, SOME, NONE), chosen=chosen, seconds=9.0)
    assert placement_line(placement) == line


def test_without_measurements_there_are_none_in_the_line():
    only = Candidate(name="all", integer_nodes=4)
    placement = Placement(mode="all", candidates=(only,), chosen="all", seconds=0.0)
    assert placement_line(placement) == "placement: all 4 sites integer as asked"


def test_where_nothing_was_weighed_there_is_no_line():
    assert placement_line(Placement(mode="all", candidates=(), chosen="all", seconds=0.0)) == ""
