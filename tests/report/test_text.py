"""The table that `ptq quantize` prints."""

from dataclasses import replace

import msgspec
import pytest

import ptq
from ptq.evaluate.accuracy import OutputError
from ptq.options import RunOptions
from ptq.report.placement import Candidate, Placement
from ptq.report.text import result_table


@pytest.fixture(scope="module")
def report(digits, tmp_path_factory):
    output = tmp_path_factory.mktemp("text") / "out.onnx"
    options = RunOptions(output=output, evaluation=str(digits.evaluation), labels=digits.evaluation)
    config = ptq.QuantizeConfig(place=("all",))  # by measured cost, so small a net may stay float
    return ptq.quantize(digits.model, digits.calibration, config, options=options).report


def with_latency(report, *given):
    """Return the report with these latencies: changes of what was measured, for each."""
    latencies = tuple(replace(report.latency, **changes) for changes in given)
    return msgspec.structs.replace(report, latency=latencies[0], latencies=latencies)


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
    changes = {"speedup": speedup, "spread": spread, "control": 1.0}
    table = result_table(with_latency(report, changes))
    assert verdict in row(table, "latency (1 thread)")


def test_every_number_of_threads_has_a_row(report):
    measured = ({"threads": 1, "speedup": 3.0}, {"threads": 2, "speedup": 2.0})
    table = result_table(with_latency(report, *({**m, "spread": 1.1} for m in measured)))
    assert "3.00x faster" in row(table, "latency (1 thread)")
    assert "2.00x faster" in row(table, "latency (2 threads)")


def test_a_report_with_one_latency_alone_shows_it(report):
    [one] = report.latencies
    assert one == report.latency
    older = msgspec.structs.replace(report, latencies=())
    assert result_table(older) == result_table(report)


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
        msgspec.structs.replace(report, accuracy=None, latency=None, latencies=(), evaluation=None)
    )
    assert "not measured" in row(table, "latency")
    assert "not measured" in row(table, "accuracy")


def test_no_line_has_trailing_blanks(report):
    assert all(line == line.rstrip() for line in result_table(report).splitlines())


def test_the_table_says_what_became_integer_and_what_is_left(report):
    layers = [layer for layer in report.layers if layer.kernel and not layer.part_of]
    assert all(layer.integer for layer in layers)
    line = row(result_table(report), f"{len(layers)} of {len(layers)} layers")
    assert f"in onnxruntime {report.environment.onnxruntime}" in line
    assert line.endswith(f"; {report.conversions} QuantizeLinear/DequantizeLinear left")


def test_one_file_is_named_and_several_with_their_formats(report):
    assert row(result_table(report), "wrote") == f"wrote {report.output.path}"
    [output] = report.outputs
    other = msgspec.structs.replace(output, format="integer", path="b.onnx", size_bytes=2_000_000)
    table = result_table(msgspec.structs.replace(report, outputs=(output, other)))
    written = [line for line in table.splitlines() if line.startswith("wrote")]
    size = f"{output.size_bytes / 1e3:.1f} kB"
    assert written == [f"wrote {output.path} (qdq, {size})", "wrote b.onnx (integer, 2.00 MB)"]


def test_nothing_is_said_to_be_written_where_nothing_was(report):
    table = result_table(msgspec.structs.replace(report, output=None, outputs=()))
    assert "wrote" not in table
    assert not table.endswith("\n")


def test_the_placement_has_a_line_if_there_was_a_choice(report):
    assert "placement" not in result_table(msgspec.structs.replace(report, placement=None))
    chosen = Candidate(name="measured", integer_nodes=51, predicted_ms=3.1, measured_ms=3.2)
    everything = Candidate(name="all", integer_nodes=63, predicted_ms=3.9, measured_ms=4.0)
    placement = Placement(
        mode="auto", candidates=(everything, chosen), chosen="measured", seconds=40.0
    )
    table = result_table(msgspec.structs.replace(report, placement=placement))
    assert row(table, "placement") == (
        "placement: 12 of 63 sites kept in float by measured cost (predicted 3.10 ms, "
        "measured 3.20 ms; all-integer 4.00 ms)"
    )
