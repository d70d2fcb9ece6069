"""What came of training, as text for a terminal."""

from __future__ import annotations

from ptq.report.table import aligned
from ptq.train.job import Evaluation, Result

#: How training ended, in words.
_ENDED = {
    "done": "all steps done",
    "no-gain": "ended early: nothing was gained any more",
    "not-finite": "ended early: a value was no finite number",
}


def result_text(result: Result) -> str:
    """Return what `ptq qat run` prints: the evaluations, and which of them is kept."""
    labelled = any(e.top1 is not None for e in result.evaluations)
    head = ("step", "held-out loss", *(["top-1"] if labelled else []), "")
    rows = [_row(e, labelled, result) for e in result.evaluations]
    lines = aligned([head, *rows], words=0)
    steps = f"{result.steps} steps, " if result.steps else ""
    return "\n".join([*lines, "", f"{steps}{_ENDED[result.stopped]}"])


def _row(evaluation: Evaluation, labelled: bool, result: Result) -> tuple[str, ...]:
    said = []
    if evaluation.step == 0 and evaluation == result.before:
        said.append("before")
    if evaluation == result.best:
        said.append("kept")
    top1 = "" if evaluation.top1 is None else f"{evaluation.top1:.2%}"
    loss = f"{evaluation.loss:.6g}"
    return str(evaluation.step), loss, *([top1] if labelled else []), ", ".join(said)
