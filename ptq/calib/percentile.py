"""Range of the central share of the values."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.calib.base import Range, Solver, data_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class PercentileSolver(Solver, frozen=True, tag="percentile"):
    """Cover ``coverage`` percent of the values; the rest saturate.

    Symmetric, the percentile is of the absolute values. Asymmetric, a tensor of one sign is cut
    at its far end, and a tensor of both signs by half at either end. Percentiles count exact
    zeros, and interpolate linearly inside a bin of the histogram.

    Attributes:
        coverage: in percent; 99.999 suits 8 bits, 99.99 suits 6, 99.9 suits 4.
    """

    paper: ClassVar[str] = (
        "McKinstry et al., Discovering Low-Precision Networks Close to Full-Precision Networks "
        "for Efficient Embedded Inference, NeurIPS EMC2 workshop 2018"
    )
    good_for: ClassVar[str] = (
        "8 bits, beside kl and mse; lower coverages for detectors with far outliers that mean "
        "nothing"
    )

    coverage: Annotated[float, Meta(gt=50.0, le=100.0)] = 99.999

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the percentiles, within the data's extremes."""
        return covering(stats, self.coverage / 100, symmetric=symmetric)


def covering(stats: TensorStats, share: float, *, symmetric: bool) -> Range:
    """Return the range of the central ``share`` of the values, zeros included.

    Raises:
        CalibrationError: the statistics are of no values.
    """
    data = data_range(stats)
    if share == 1:
        return data
    if symmetric:
        bound = stats.hist.abs_quantile(share)
        return data.clipped(-bound, bound)
    if data.lo == 0:
        return data.clipped(0.0, stats.hist.quantile(share))
    if data.hi == 0:
        return data.clipped(stats.hist.quantile(1 - share), 0.0)
    tail = (1 - share) / 2
    return data.clipped(stats.hist.quantile(tail), stats.hist.quantile(1 - tail))
