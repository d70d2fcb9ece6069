"""Weight range of the central share of each channel's weights."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.arrays import F32, F64
from ptq.numerics.qtype import QType
from ptq.weights.base import RangeQuantizer
from ptq.weights.minmax import extremes


class PercentileQuantizer(RangeQuantizer, frozen=True, tag="percentile"):
    """Cover ``coverage`` percent of the weights of each channel; the rest saturate.

    Symmetric, the percentile is of the absolute weights; asymmetric, half is cut at either end.

    Attributes:
        coverage: in percent. A channel of few weights needs a low one to cut anything.
    """

    paper: ClassVar[str] = (
        "McKinstry et al., Discovering Low-Precision Networks Close to Full-Precision Networks "
        "for Efficient Embedded Inference, NeurIPS EMC2 workshop 2018"
    )
    good_for: ClassVar[str] = "outliers whose share is known; mse finds it by itself"

    coverage: Annotated[float, Meta(gt=50.0, le=100.0)] = 99.99

    def ranges(self, rows: F32, qtype: QType, *, symmetric: bool) -> tuple[F64, F64]:
        """Return the percentiles of each row, linearly interpolated between weights."""
        if not rows.shape[1]:
            return extremes(rows)
        values = rows.astype(np.float64)
        if symmetric:
            bound = np.percentile(np.abs(values), self.coverage, axis=1)
            return -bound, bound
        tail = (100 - self.coverage) / 2
        lo, hi = np.percentile(values, [tail, 100 - tail], axis=1)
        return np.minimum(lo, 0.0), np.maximum(hi, 0.0)
