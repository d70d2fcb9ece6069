"""Clipping range with one learned end: PACT, with the end searched instead of trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from ptq.calib.base import Range, Solver, data_range
from ptq.calib.least_error import least_error_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class PactSolver(Solver, frozen=True, tag="pact"):
    """Clip to ``0 .. alpha``, with alpha of the least error of the tensor or of the output.

    ``y = clip(x, 0, alpha)``, rounded to ``alpha / (2^bits - 1)``; each tensor has an alpha. The
    paper trains it. Here it is that of least squared error, and with ``by=output`` a coordinate
    search then turns one alpha after the other, for the least error of the network's output on
    samples that were kept out of the statistics.

    The paper has it for what a Relu puts out. A tensor of both signs is clipped at both ends, each
    where the error is least, and ``by=output`` turns both by one factor. So with ``by=error`` the
    ranges are those of `mse`.

    Attributes:
        by: what the error is of.
        trials: how often the search may run the network; 0 leaves it out.
        factor: what both ends are then multiplied by, within the data's extremes: what the search
            finds for single tensors.
    """

    paper: ClassVar[str] = (
        "Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, "
        "arXiv:1805.06085, 2018, equations 1 and 2"
    )
    good_for: ClassVar[str] = (
        "2 bits, with by=output: half a dB over mse where it finds anything; else the ranges of mse"
    )
    two_sided: ClassVar[str] = "clipped at both ends"

    by: Literal["error", "output"] = "error"
    trials: Annotated[int, Meta(ge=0)] = 100
    factor: Annotated[float, Meta(ge=0.05, le=8.0)] = 1.0

    @property
    def runs_network(self) -> bool:
        """Whether alpha is searched by the output."""
        return self.by == "output"

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of least error, times the factor."""
        return self.scaled(least_error_range(stats, qtype, symmetric=symmetric), stats)

    def scaled(self, found: Range, stats: TensorStats) -> Range:
        """Return a range times the factor, within the data's extremes."""
        if self.factor == 1.0:
            return found
        return data_range(stats).clipped(found.lo * self.factor, found.hi * self.factor)
