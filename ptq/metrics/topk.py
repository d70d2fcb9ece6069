"""Top-k accuracy: how often the right class is among the best k."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.data.labels import Labels
from ptq.errors import DataError
from ptq.metrics.base import Metric, Outputs, Sums, ratio
from ptq.metrics.class_scores import among_best, as_rows, scores_output


class TopK(Metric, frozen=True, tag="topk"):
    """Share of the labelled rows whose right class is among the model's best ``k``.

    Attributes:
        k: how many classes count.
        output: the output with the class scores on its last axis; found if one looks like it.
    """

    labels = "required"
    label_kind = "classes"
    counts = True
    empty = "there are no rows"
    paper: ClassVar[str] = (
        "Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115, 2015"
    )

    k: Annotated[int, Meta(ge=1)] = 1
    output: str = ""

    @property
    def title(self) -> str:
        """``top-1 accuracy``."""
        return f"top-{self.k} accuracy"

    def answers(self, reference: Outputs) -> int:
        """Return the number of rows."""
        rows = as_rows(reference[scores_output(reference, self.output)])
        return int(rows.shape[0] * rows.shape[1])

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return ``(right, answers)`` for each row, or for each sequence of them."""
        assert labels is not None, "score() gives labels where they are required"
        rows = as_rows(got[scores_output(reference, self.output)])
        truth = np.asarray(labels, np.int64).reshape(rows.shape[:2])
        classes = rows.shape[-1]
        wrong = truth[(truth < 0) | (truth >= classes)]
        if wrong.size:
            raise DataError(
                f"label {wrong[0]} is none of the model's {classes} classes, which count from 0"
            )
        return among_best(rows, truth, self.k)

    def figure(self, sums: Sums) -> Sums:
        """Return the share of right answers."""
        return ratio(sums[..., 0], sums[..., 1])
