"""The result table for a terminal."""

from __future__ import annotations

from ptq.evaluate.latency import Latency
from ptq.report.data_free import data_free_line
from ptq.report.decibels import decibels
from ptq.report.layers import coverage_lines
from ptq.report.placement import placement_line
from ptq.report.report import Report
from ptq.report.table import aligned, megabytes
from ptq.report.widths import activations_line, coding_line, quantized_title, widths_line


def result_table(report: Report) -> str:
    """Return the table that `ptq quantize` prints: size, speed, accuracy, what ran as integer."""
    lines = [*aligned([("", "float", quantized_title(report), ""), *summary_rows(report)]), ""]
    lines += coverage_lines(
        report.layers, report.ran_integer, report.conversions, report.environment.onnxruntime
    )
    if report.placement is not None and (line := placement_line(report.placement)):
        lines.append(line)
    if line := widths_line(report.weight_bits):
        lines.append(line)
    if report.weight_coding is not None:
        lines.append(coding_line(report.weight_coding))
    if line := activations_line(report.tensors):
        lines.append(line)
    if report.data_free is not None:
        lines += ["", data_free_line(report.data_free)]
    return "\n".join([*lines, *_written(report)])


def summary_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Return size, speed and accuracy: what, of the float and of the quantized model, and more."""
    size = [_size(report)] if report.output is not None else []
    return [*size, *_latency(report), *_accuracy(report)]


def _written(report: Report) -> list[str]:
    if len(report.outputs) > 1:
        files = [f"{o.path} ({o.format}, {megabytes(o.size_bytes)})" for o in report.outputs]
    else:
        files = [report.output.path] if report.output is not None else []
    return ["", *(f"wrote {file}" for file in files)] if files else []


def _size(report: Report) -> tuple[str, str, str, str]:
    assert report.output is not None
    before, after = report.input.size_bytes, report.output.size_bytes
    return ("size", megabytes(before), megabytes(after), f"{before / after:.2f}x smaller")


def _latency(report: Report) -> list[tuple[str, str, str, str]]:
    latencies = report.latencies or ((report.latency,) if report.latency is not None else ())
    if not latencies:
        return [("latency", "-", "-", "not measured")]
    return [_timed(latency) for latency in latencies]


def _timed(latency: Latency) -> tuple[str, str, str, str]:
    control = f"control {latency.control:.2f}x, spread {latency.spread:.2f}x"
    verdict: str = latency.verdict
    if verdict != "no difference":
        ratio = latency.speedup if latency.speedup > 1 else 1 / latency.speedup
        verdict = f"{ratio:.2f}x {verdict}"
    threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
    return (
        f"latency ({threads})",
        f"{latency.reference.median_ms:.2f} ms",
        f"{latency.quantized.median_ms:.2f} ms",
        f"{verdict} ({control}, n={latency.rounds})",
    )


def _accuracy(report: Report) -> list[tuple[str, str, str, str]]:
    accuracy = report.accuracy
    if accuracy is None or report.evaluation is None:
        return [("accuracy", "-", "-", "not measured")]
    made_up = "random " if report.evaluation.synthetic else ""
    role = report.evaluation.role.partition(" ")[0]
    on = f"{accuracy.samples} {made_up}{role} samples"
    largest = max(o.max_abs for o in accuracy.outputs)
    rows = [("SQNR", "", _sqnr(accuracy.sqnr_db, largest), on)]
    if len(accuracy.outputs) > 1:
        rows += [(f"  {o.name}", "", _sqnr(o.sqnr_db, o.max_abs), "") for o in accuracy.outputs]
    rows.append(("cosine", "", f"{min(o.cosine for o in accuracy.outputs):.5f}", ""))
    rows.append(("max abs error", "", f"{largest:.4g}", ""))
    if accuracy.agreement is not None:
        rows.append(("top-1 agreement", "", f"{accuracy.agreement:.2%}", "with the float model"))
    if accuracy.float_top1 is not None and accuracy.quantized_top1 is not None:
        change = accuracy.quantized_top1 - accuracy.float_top1
        rows.append(
            (
                "top-1 accuracy",
                f"{accuracy.float_top1:.2%}",
                f"{accuracy.quantized_top1:.2%}",
                f"{100 * change:+.2f} points",
            )
        )
    return rows


def _sqnr(value: float | None, max_abs: float) -> str:
    return decibels(value, equal="exact" if max_abs == 0 else "no signal", digits=2)
