"""Agreement of the classes: how often both models decide alike."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ptq.data.labels import Labels
from ptq.metrics.base import Metric, Outputs, Sums, ratio
from ptq.metrics.class_scores import among_best, as_rows, scores_output
from ptq.metrics.outputs import pair


class Agreement(Metric, frozen=True, tag="agreement"):
    """Share of the rows of which the float model's best class is among the quantized one's best.

    Attributes:
        k: among how many of the quantized model's best it may be; 1: both have the same best.
        output: the output with the class scores on its last axis; found if one looks like it.
    """

    counts = True
    empty = "there are no rows"

    k: Annotated[int, Meta(ge=1)] = 1
    output: str = ""

    @property
    def title(self) -> str:
        """``agreement with float``."""
        return f"{f'top-{self.k} ' if self.k > 1 else ''}agreement with float"

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return ``(right, answers)`` for each row, or for each sequence of them."""
        a, b = pair(got, reference, scores_output(reference, self.output))
        rows = as_rows(b)
        return among_best(as_rows(a), rows.argmax(axis=-1), self.k)

    def figure(self, sums: Sums) -> Sums:
        """Return the share of rows."""
        return ratio(sums[..., 0], sums[..., 1])
