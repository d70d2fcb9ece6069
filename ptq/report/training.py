"""What came of training, as text for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from itertools import groupby

from ptq.report.table import aligned
from ptq.train.job import Evaluation, Result
from ptq.train.manifest import LossKind, Manifest

#: What a job trains for, in words.
_LOSSES: dict[LossKind, str] = {
    "kl": "the classes of the float model",
    "mse": "the outputs of the float model",
    "auto": "the outputs of the float model",
    "layers": "the outputs of the float model, and of its blocks",
    "labels": "labels",
}

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


def job_text(manifest: Manifest, folder: str) -> str:
    """Return what `ptq qat export` prints: what there is to train, and how to."""
    loss = "labels" if manifest.labels else _LOSSES[manifest.loss.kind]
    counts = Counter[str]()
    sizes = Counter[str]()
    for p in manifest.parameters:
        counts[p.role] += 1
        sizes[p.role] += math.prod(p.shape)
    rows = [(role, str(counts[role]), f"{sizes[role]:,}") for role in counts]
    lines = [
        f"{manifest.method} at W{manifest.weight_bits}A{manifest.activation_bits}, towards {loss}; "
        f"{manifest.batch} samples in each run",
        "",
        *aligned([("trained", "arrays", "numbers"), *rows], words=0),
    ]
    for reason, some in groupby(manifest.untrained, lambda u: (u.node, u.op_type, u.reason)):
        node, op_type, why = reason
        before = f"before '{node}' ({op_type}): {why}" if node else why
        lines.append(f"not trained: {len(list(some))} {before}")
    return "\n".join([*lines, "", f"wrote {folder}; train it with: ptq qat run {folder} --data …"])


def _row(evaluation: Evaluation, labelled: bool, result: Result) -> tuple[str, ...]:
    said = []
    if evaluation.step == 0 and evaluation == result.before:
        said.append("before")
    if evaluation == result.best:
        said.append("kept")
    top1 = "" if evaluation.top1 is None else f"{evaluation.top1:.2%}"
    loss = f"{evaluation.loss:.6g}"
    return str(evaluation.step), loss, *([top1] if labelled else []), ", ".join(said)
