"""The choice among candidates that were timed."""

import pytest

from ptq.evaluate.latency import Speedup
from ptq.placing import FLOAT, PREPARED, _fastest
from ptq.report.placement import ALL


def speedups(prepared, *, spread=1.05, **integer):
    timed = {FLOAT: 1.0, PREPARED: prepared, **integer}
    return {name: Speedup(ratio, ratio, spread=spread) for name, ratio in timed.items()}


@pytest.mark.parametrize(
    ("timed", "chosen", "float_is_faster"),
    [
        (speedups(1.0, all=2.0, cut=1.5), ALL, False),
        (speedups(1.0, all=1.5, cut=2.0), "cut", False),
        # within two percent the smaller one is taken
        (speedups(1.0, all=1.98, cut=2.0), ALL, False),
        # and so it is within the spread, but that is no excuse for everything
        (speedups(1.0, all=1.92, cut=2.0), ALL, False),
        (speedups(1.0, spread=1.01, all=1.92, cut=2.0), "cut", False),
        (speedups(1.0, spread=1.5, all=1.9, cut=2.0), ALL, False),
        (speedups(1.0, spread=1.5, all=1.7, cut=2.0), "cut", False),
        # no slower than float is enough for all-integer, but not for a part of it
        (speedups(1.0, all=0.97, cut=0.9), ALL, False),
        (speedups(1.0, all=0.7, cut=1.02), "cut", True),
        (speedups(1.0, all=0.7, cut=0.8), "cut", True),
        # the prepared float model may be the fastest of all
        (speedups(1.5, all=1.2, cut=1.3), "cut", True),
        (speedups(1.5, all=1.2, cut=1.9), "cut", False),
        # all-integer was not worth timing
        (speedups(1.0, cut=1.3), "cut", False),
    ],
)
def test_the_fastest_is_taken_and_float_where_it_is_faster(timed, chosen, float_is_faster):
    assert _fastest(timed) == (chosen, float_is_faster)
