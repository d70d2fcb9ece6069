"""The table that `ptq quantize` prints."""

from dataclasses import replace

import msgspec
import pytest

import ptq
from ptq.evaluate.accuracy import OutputError
from ptq.options import RunOptions
from ptq.report.text import result_table


@pytest.fixture(scope="module")
def report(digits, tmp_path_factory):
    output = tmp_path_factory.mktemp("text") / "out.onnx"
    options = RunOptions(output=output, evaluation=str(digits.evaluation), labels=digits.evaluation)
    return ptq.quantize(digits.model, digits.calibration, options=options).report


def with_latency(report, **changes):
    return msgspec.structs.replace(report, latency=replace(report.latency, **changes))


def with_accuracy(report, **changes):
    return msgspec.structs.replace(report, accuracy=replace(report.accuracy, **changes))


def row(table: str, name: str) -> str:
    [line] = [line for line in table.splitlines() if line.startswith(name)]
    return line


@pytest.mark.parametrize(
    ("speedup", "spread", "verdict"),
    [
        (2.0, 1.1, "2.00x faster (control 1.00x, spread 1.10x"),
        (0.5, 1.1, "2.00x slower"),
        (1.05, 1.1, "no difference"),
        (0.95, 1.1, "no difference"),
        (2.0, 2.5, "no difference"),
    ],
)
def test_a_difference_within_the_control_is_none(report, speedup, spread, verdict):
    table = result_table(with_latency(report, speedup=speedup, spread=spread, control=1.0))
    assert verdict in row(table, "latency (1 thread)")


def test_equal_outputs_are_exact(report):
    equal = (OutputError("logits", None, 1.0, 0.0),)
    table = result_table(with_accuracy(report, sqnr_db=None, outputs=equal))
    assert row(table, "SQNR").split()[1] == "exact"


def test_errors_on_a_signal_of_zeros_are_not_called_exact(report):
    zeros = (OutputError("logits", None, 0.0, 0.5),)
    table = result_table(with_accuracy(report, sqnr_db=None, outputs=zeros))
    assert "no signal" in row(table, "SQNR")


def test_every_output_of_several_has_a_row(report):
    outputs = tuple(OutputError(name, 30.0, 0.99, 0.1) for name in ("boxes", "scores"))
    table = result_table(with_accuracy(report, outputs=outputs))
    assert "30.00 dB" in row(table, "  boxes")
    assert "30.00 dB" in row(table, "  scores")


def test_labels_show_as_a_change_in_points(report):
    table = result_table(with_accuracy(report, float_top1=0.9, quantized_top1=0.885))
    assert row(table, "top-1 accuracy").split() == [
        *("top-1", "accuracy", "90.00%", "88.50%", "-1.50", "points")
    ]


def test_what_was_not_measured_is_called_that(report):
    table = result_table(
        msgspec.structs.replace(report, accuracy=None, latency=None, evaluation=None)
    )
    assert "not measured" in row(table, "latency")
    assert "not measured" in row(table, "accuracy")


def test_no_line_has_trailing_blanks(report):
    assert all(line == line.rstrip() for line in result_table(report).splitlines())
