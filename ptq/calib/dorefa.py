"""The range of DoReFa activations: what the network was trained to stay within."""

from __future__ import annotations

from typing import ClassVar

from ptq.calib.base import Range, Solver, data_range
from ptq.numerics.qtype import QType
from ptq.stats.base import TensorStats

#: The unit interval of either sign.
_LO, _HI = -1.0, 1.0


class DorefaSolver(Solver, frozen=True, tag="dorefa"):
    """Clip to ``0 .. 1``, whatever the values are: a baseline, for networks trained to fit it.

    ``quantize_k(clip(a, 0, 1))`` with ``quantize_k(r) = round((2^k - 1) r) / (2^k - 1)``. The paper
    trains a network so that its activations fit. One that was not trained so loses whatever is
    beyond 1, which after training can be nearly all; `minmax` and `mse` give each tensor its own
    unit in place of 1. A tensor of both signs, which the paper has none of, is clipped to
    ``-1 .. 1``. Where no value reaches an end the range ends at the data, which wastes no code.
    """

    paper: ClassVar[str] = (
        "Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low "
        "Bitwidth Gradients, arXiv:1606.06160, 2016, equations 5 and 11"
    )
    good_for: ClassVar[str] = "a baseline; networks that were trained with activations in 0 .. 1"
    two_sided: ClassVar[str] = "clipped to -1 .. 1"

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return ``0 .. 1`` or ``-1 .. 1``, no wider than the data."""
        return unit_range(stats)


def unit_range(stats: TensorStats) -> Range:
    """Return the part of ``-1 .. 1`` that the data reach.

    Raises:
        CalibrationError: there are no data.
    """
    return data_range(stats).clipped(_LO, _HI)
