"""The choice of a range method by the error of the network's output."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from ptq.calib.base import Range, Solver
from ptq.calib.mse import MseSolver
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats


class AutoSolver(Solver, frozen=True, tag="auto"):
    """The method of least output error on held-out samples, and others for tensors where it pays.

    Every candidate is solved from the same statistics, written, and measured on samples that were
    kept out of them. Of those that cannot be told apart the first is taken, which is `kl`. Single
    tensors are then given the range of another candidate, those first about which the candidates
    disagree most; what lowers the error by more than noise stays.

    Attributes:
        trials: how many changes of single tensors are tried at most; 0 only chooses the method.
    """

    paper: ClassVar[str] = (
        "choice among the other methods by measurement; Nahshan et al., Loss Aware Post-training "
        "Quantization, Machine Learning 2021, for why the output is what counts"
    )
    good_for: ClassVar[str] = "8 bits, to have the method chosen by the output; takes twice as long"
    trials: Annotated[int, Meta(ge=0)] = 40

    @property
    def runs_network(self) -> bool:
        """It does."""
        return True

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the range of `mse`: from the statistics of one tensor, no more can be told."""
        return MseSolver().solve(stats, qtype, symmetric=symmetric)
