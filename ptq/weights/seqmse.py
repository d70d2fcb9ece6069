"""Weight ranges by the error of what the layer puts out."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.arrays import F32, F64
from ptq.numerics.qtype import QType
from ptq.weights.base import RangeQuantizer
from ptq.weights.minmax import extremes

#: The least factor that is tried.
_LEAST = 0.25


class SeqMseQuantizer(RangeQuantizer, frozen=True, tag="seqmse"):
    """The range of each channel with which the output of the layer errs least, on real inputs.

    Both ends are multiplied by a factor. Of each, the squared error of the outputs follows from the
    sums of products of the inputs, which are taken from the quantized network, layers before it
    chosen already; the network is not run for them. All is kept if the outputs of the network are
    better with it. Layers with very many inputs have `minmax`.

    Attributes:
        steps: how many factors from 0.25 to 1 are tried.
    """

    paper: ClassVar[str] = (
        "Siddegowda et al., Neural Network Quantization with AI Model Efficiency Toolkit (AIMET), "
        "arXiv:2201.08442, 2022; its SeqMSE, from second moments in place of passes"
    )
    good_for: ClassVar[str] = (
        "4 bits to nearest: ranges by what layers put out; in front of gptq, mse is as good"
    )
    runs_network: ClassVar[bool] = True

    steps: Annotated[int, Meta(ge=2, le=200)] = 16

    def ranges(self, rows: F32, qtype: QType, *, symmetric: bool) -> tuple[F64, F64]:
        """Return the extremes of each row: what the search starts from."""
        return extremes(rows)

    def factors(self) -> F64:
        """Return the factors that are tried, descending from 1."""
        return np.linspace(1.0, _LEAST, self.steps)


class ShrunkQuantizer(RangeQuantizer, frozen=True):
    """The extremes of each channel times a factor of its own, of shape ``(channels,)`` or one."""

    factors: F64

    def ranges(self, rows: F32, qtype: QType, *, symmetric: bool) -> tuple[F64, F64]:
        """Return the range of each row."""
        lo, hi = extremes(rows)
        return lo * self.factors, hi * self.factors
