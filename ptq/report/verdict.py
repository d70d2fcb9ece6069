"""A report in a line: how much smaller, how much faster, how close."""

from __future__ import annotations

from dataclasses import dataclass

from ptq.report.report import Report

#: The placements that keep the float model: the user's, or as it was prepared.
_FLOAT = "float"


@dataclass(frozen=True, slots=True)
class Headline:
    """One of the few figures that matter most.

    Attributes:
        figure: with its unit, such as ``3.6x``.
        claim: what it says: ``smaller``.
        detail: what it rests on.
    """

    figure: str
    claim: str
    detail: str

    def __str__(self) -> str:
        return f"{self.figure} {self.claim}".strip()


def verdict(report: Report) -> str:
    """Return the line that sums a report up: ``3.6x smaller, 1.8x faster, 13.3 dB``."""
    said = [str(headline) for headline in headlines(report)]
    kept = ["float model kept"] if keeps_float(report) else []
    blind = ["made without data"] if report.data_free is not None else []
    return ", ".join([*blind, *kept, *said]) or "nothing was measured"


def keeps_float(report: Report) -> bool:
    """Whether the float model was written, because nothing else was faster."""
    return report.placement is not None and report.placement.chosen.startswith(_FLOAT)


def headlines(report: Report) -> list[Headline]:
    """Return the figures of size, speed and accuracy, as far as they were measured."""
    return [*_size(report), *_speed(report), *_accuracy(report)]


def missing_parts(report: Report) -> list[str]:
    """Return what a page on this report cannot show, and how to get it."""
    if not (report.errors or report.profile or report.histograms):
        return [
            "this report has no errors, times and histograms of single layers; quantize again with "
            "--report PAGE.html to have them"
        ]
    missing = []
    if not report.errors:
        missing.append(f"layers were not compared: {_why_not_compared(report)}")
    if report.profile is None:
        missing.append(f"layers were not timed: {_why_not_timed(report)}")
    return missing


def _why_not_compared(report: Report) -> str:
    if keeps_float(report):
        return "the float model was kept"
    if report.accuracy is None:
        return "there was no data; give --eval-data"
    return "the models share no inner tensors"


def _why_not_timed(report: Report) -> str:
    if keeps_float(report):
        return "the float model was kept"
    if report.accuracy is None:
        return "there was no data; give --eval-data"
    return f"'{report.config.target}' is not this machine"


def _size(report: Report) -> list[Headline]:
    if report.output is None:
        return []
    before, after = report.input.size_bytes, report.output.size_bytes
    detail = f"{before / 1e6:.2f} MB to {after / 1e6:.2f} MB"
    ratio = before / after
    if _times(ratio) == _times(1.0):
        return [Headline("same", "size", detail)]
    return [Headline(_times(ratio), "smaller" if ratio > 1 else "larger", detail)]


def _speed(report: Report) -> list[Headline]:
    found = report.latency
    if found is None:
        return []
    times = f"{_ms(found.reference.median_ms)} to {_ms(found.quantized.median_ms)}"
    detail = f"{times}; float against itself {found.control:.2f}x, spread {found.spread:.2f}x"
    if found.verdict == "no difference":
        return [Headline("same", "speed", detail)]
    return [Headline(_times(found.speedup), found.verdict, detail)]


def _accuracy(report: Report) -> list[Headline]:
    found = report.accuracy
    if found is None:
        return []
    on = "" if report.evaluation is None else _on(report)
    rest = []
    if found.float_top1 is not None and found.quantized_top1 is not None:
        change = 100 * (found.quantized_top1 - found.float_top1)
        # a change that rounds to nothing has no sign
        rest.append(Headline(f"{round(change, 2) + 0.0:+.2f}", "points top-1", _top1(report)))
    elif found.agreement is not None:
        rest.append(Headline(f"{found.agreement:.1%}", "agreement", f"same top class{on}"))
    if found.sqnr_db is not None:
        return [Headline(f"{found.sqnr_db:.1f} dB", "", f"signal to quantization noise{on}"), *rest]
    exact = all(output.max_abs == 0 for output in found.outputs)
    if exact:
        return [Headline("exact", "", f"outputs are equal{on}"), *rest]
    return [Headline("no signal", "", f"the float model's outputs are all zero{on}"), *rest]


def _on(report: Report) -> str:
    assert report.accuracy is not None and report.evaluation is not None
    made_up = "random " if report.evaluation.synthetic else ""
    role = report.evaluation.role.partition(" ")[0]
    return f", {report.accuracy.samples} {made_up}{role} samples"


def _top1(report: Report) -> str:
    assert report.accuracy is not None
    found = report.accuracy
    assert found.float_top1 is not None and found.quantized_top1 is not None
    return f"{found.float_top1:.2%} to {found.quantized_top1:.2%}{_on(report)}"


def _times(ratio: float) -> str:
    return f"{max(ratio, 1 / ratio):.1f}x"


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value >= 1 else f"{value:.3f} ms"
