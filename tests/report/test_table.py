"""Tables and figures for a terminal."""

import pytest

from ptq.report.table import aligned, megabytes


def test_words_are_flush_left_and_figures_flush_right():
    rows = [("operator", "nodes", "why"), ("Conv", "12", "because"), ("GlobalAveragePool", "1", "")]
    assert aligned(rows) == [
        "operator           nodes  why",
        "Conv                  12  because",
        "GlobalAveragePool      1",
    ]


def test_more_columns_may_be_words():
    assert aligned([("a", "Conv", "x"), ("bb", "Add", "y")], words=2) == [
        "a   Conv  x",
        "bb  Add   y",
    ]


def test_no_rows_are_no_lines():
    assert aligned([]) == []


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "1.0 kB"), (71_700, "71.7 kB"), (152_308, "0.15 MB"), (90_300_000, "90.30 MB")],
)
def test_sizes_have_units(size, text):
    assert megabytes(size) == text
