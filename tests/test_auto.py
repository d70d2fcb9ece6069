"""The choice among schemes."""

import msgspec
import pytest

from ptq.auto import choose_scheme
from ptq.evaluate.accuracy import Accuracy
from ptq.evaluate.latency import Latency, Timing
from ptq.report import FileInfo, Placement


class Found(msgspec.Struct):
    """What the choice reads of a report."""

    accuracy: Accuracy
    latency: Latency
    output: FileInfo
    placement: Placement


def report(sqnr_db, speedup, size_bytes=100, chosen="all"):
    one = Timing(1.0, 1.0, 1.0)
    return Found(
        Accuracy(1, (), sqnr_db, agreement=None, float_top1=None, quantized_top1=None),
        Latency(one, one, speedup, 1.0, 1.05, rounds=15, threads=1),
        FileInfo(path="m", size_bytes=size_bytes, sha256=""),
        Placement(mode="auto", candidates=(), chosen=chosen, seconds=0.0),
    )


@pytest.mark.parametrize(
    ("reports", "chosen"),
    [
        # far from the best accuracy: its speed does not count
        ({"static": report(12, 3.0), "dynamic": report(25, 2.0)}, "dynamic"),
        ({"static": report(12, 3.0), "dynamic": report(14, 2.0)}, "static"),
        # both good enough
        ({"static": report(31, 3.0), "weight-only": report(60, 1.0)}, "static"),
        # equally fast: the smaller
        ({"static": report(40, 2.0, 50), "dynamic": report(40, 2.05, 40)}, "dynamic"),
        ({"static": report(40, 2.0, 40), "dynamic": report(40, 2.05, 50)}, "static"),
        # a model that stayed in float is only taken where all did
        ({"static": report(None, 1.0, chosen="float"), "dynamic": report(20, 0.99)}, "dynamic"),
        ({"static": report(None, 1.0, 9, chosen="float")}, "static"),
    ],
)
def test_the_fastest_of_the_accurate_ones_is_taken(reports, chosen):
    assert choose_scheme(reports) == chosen


@pytest.mark.parametrize(
    ("reports", "chosen"),
    [
        # neither speed nor accuracy counts
        ({"static": report(31, 2.0, 900), "dynamic": report(12, 1.0, 500)}, "dynamic"),
        # as small: the more accurate
        ({"static": report(15, 2.0, 500), "dynamic": report(26, 1.0, 510)}, "dynamic"),
        ({"static": report(15, 2.0, 500), "dynamic": report(26, 1.0, 511)}, "static"),
        # a model that stayed in float is only taken where all did
        (
            {"static": report(None, 1.0, 100, chosen="float"), "dynamic": report(9, 1.0, 200)},
            "dynamic",
        ),
    ],
)
def test_the_smallest_is_taken_where_size_is_preferred(reports, chosen):
    assert choose_scheme(reports, prefer="size") == chosen
