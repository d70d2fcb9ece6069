"""Clipping ranges searched together by the error of the network's output."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.calib.base import Range, Solver
from ptq.calib.mse import MseSolver
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class LapqSolver(Solver, frozen=True, tag="lapq"):
    """The norm of which the ranges make the output err least, then all ranges turned together.

    Ranges of least L_p error (`lp`) are written for several p from 2 to 4 and measured on samples
    that were kept out of the statistics; the vertex of a parabola through them is tried as well.
    From the best, Powell's method turns the ranges of all tensors: first all of them by one factor,
    then halves of the network against each other, and so on. The result is kept if it is better by
    more than noise on samples that Powell's method has not seen.

    Attributes:
        trials: how often Powell's method may run the network on its samples; 0 leaves it out.
    """

    paper: ClassVar[str] = (
        "Nahshan et al., Loss Aware Post-training Quantization, Machine Learning 2021, "
        "algorithm 1; with the error of the outputs for the loss, which needs no labels"
    )
    good_for: ClassVar[str] = (
        "few bits, where ranges by the output are wanted; at 3 and 8 bits within a dB of mse here"
    )
    trials: Annotated[int, Meta(ge=0)] = 100

    @property
    def runs_network(self) -> bool:
        """It does."""
        return True

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of `mse`: from the statistics of one tensor, no more can be told."""
        return MseSolver().solve(stats, qtype, symmetric=symmetric)
