"""How good parameters are: the loss of the held-out feeds, and the share of right classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import TrainingError
from ptq.metrics.class_scores import scores_index
from ptq.train import manifest as contract
from ptq.train.job import Evaluation, Job
from ptq.train.passes import RowPasses
from ptq.train.sample_rows import Samples

#: The output of ``train.onnx`` and ``eval.onnx`` that is made small.
LOSS = "loss"


class Judge:
    """Runs ``eval.onnx`` on held-out feeds.

    Args:
        job: whose parameters are judged.
        held: the feeds, with what is aimed at.
        threads: for onnxruntime.

    Raises:
        TrainingError: the graph does not fit the manifest or the feeds.
        VerificationError: onnxruntime refuses the graph.
    """

    def __init__(self, job: Job, held: Samples, threads: int = 1) -> None:
        self.held = held
        self.labels = job.manifest.labels
        self.outputs = (*job.manifest.outputs, LOSS)
        if self.labels is not None and held.labels is None:
            raise TrainingError(
                f"{contract.HELD_OUT} has no labels, which the job trains on; export it anew"
            )
        path = job.path(contract.EVAL)
        blocks = {**held.blocks, self.labels or "": 1}
        self.network = RowPasses(path, blocks, job.manifest.batch, threads)
        missing = sorted({*self.outputs} - {*self.network.outputs})
        if missing:
            raise TrainingError(f"'{path}' lacks the output '{missing[0]}'; export the job anew")
        if self.network.fixed and held.rows % self.network.batch:
            raise TrainingError(
                f"'{path}' takes {self.network.batch} rows at a time, and there are {held.rows} "
                "held-out rows; export the job anew"
            )

    def judge(self, parameters: Mapping[str, np.ndarray], step: int) -> Evaluation | None:
        """Return how good parameters are; ``None`` if their loss is no finite number.

        Args:
            parameters: float32, by name.
            step: after how many steps they are.

        Raises:
            DataError: onnxruntime fails on the feeds.
        """
        held, batch = self.held, self.network.batch
        total, right = 0.0, 0
        for start in range(0, held.rows, batch):
            rows = slice(start, min(start + batch, held.rows))
            count = rows.stop - rows.start
            feed = {**held.feed(rows), **self._labels(rows)}
            *outputs, loss = self.network.run(
                feed, count, self.outputs, parameters, where="the held-out feeds"
            )
            total += float(loss) * count
            if held.labels is not None:
                right += _right(outputs, held.labels[rows])
        if not math.isfinite(total):
            return None
        top1 = None if held.labels is None else right / held.labels.size
        return Evaluation(step=step, loss=total / held.rows, top1=top1)

    def _labels(self, rows: slice) -> Feed:
        if self.labels is None or self.held.labels is None:
            return {}
        return {self.labels: self.held.labels[rows]}


def _right(outputs: Sequence[np.ndarray], labels: np.ndarray) -> int:
    """Return how many rows have their best score at their label."""
    index = scores_index(outputs, told=True)
    if index is None or outputs[index].shape[:-1] != labels.shape:
        raise TrainingError(
            "the held-out feeds have labels, and no output has one row of class scores for each; "
            "export the job without labels"
        )
    return int((outputs[index].argmax(axis=-1) == labels).sum())
