"""How many bits tensors have: those that share codes as many, of several wishes the largest."""

import pytest

from ptq.plan.request import Request
from ptq.plan.widths import common_widths

REQUESTS = (
    Request("x", observed="x"),
    Request("r", observed="r"),
    Request("pooled", copies="r"),
    Request("moved", copies="pooled"),
    Request("scaled", copies="x", factor=2.0),
    Request("other", observed="other"),
    Request("joined", joins=("r", "other")),
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, {}),
        ({"other": 4}, {"other": 4}),
        ({"moved": 4}, {"r": 4, "pooled": 4, "moved": 4}),
        ({"r": 4}, {"r": 4, "pooled": 4, "moved": 4}),
        ({"moved": 4, "r": 8}, {"r": 8, "pooled": 8, "moved": 8}),
        ({"scaled": 3}, {"x": 3, "scaled": 3}),
        ({"joined": 4}, {"joined": 4}),
        ({"not asked for": 4}, {}),
    ],
)
def test_tensors_that_share_codes_have_one_width(wanted, found):
    assert common_widths(REQUESTS, wanted) == found
