"""Cosine similarity of the outputs."""

from __future__ import annotations

import numpy as np

from ptq.metrics.base import Sums
from ptq.metrics.output_difference import OutputDifference


class CosineSimilarity(OutputDifference, frozen=True, tag="cosine"):
    """Cosine of the angle between the models' outputs, all values of all samples as one vector."""

    unit = "number"

    @property
    def title(self) -> str:
        """``cosine similarity``."""
        return self._titled("cosine similarity")

    def figure(self, sums: Sums) -> Sums:
        """Return the cosine: 1 for equal outputs, 0 if only one is zero, as `ErrorSums` has it."""
        noise, dot, ref_sq, out_sq, count = np.moveaxis(sums, -1, 0)
        length = np.sqrt(ref_sq) * np.sqrt(out_sq)
        cosine = np.divide(dot, length, out=np.zeros_like(dot), where=length > 0)
        cosine = np.where(noise == 0, 1.0, np.clip(cosine, -1.0, 1.0))
        return np.where(count == 0, np.nan, cosine)
