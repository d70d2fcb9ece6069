"""Ternary weights with a magnitude for each sign."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.arrays import F32
from ptq.weights.codebook import Codebook, CodebookQuantizer, to_nearest
from ptq.weights.twn import best_magnitude, mean_above


class TtqQuantizer(CodebookQuantizer, frozen=True, tag="ttq"):
    """A magnitude below zero, nothing, or one above: of least squared error, each sign by itself.

    Levels are ``-Wn``, 0 and ``Wp``. The two sides do not share a weight, so that each has the
    minimum of `twn` over its own. The paper trains both magnitudes instead, from weights whose
    threshold is ``t max|w|``; without training they are the means of what lies beyond.

    Attributes:
        t: threshold as a share of the largest magnitude of the channel, 0.05 in the paper; with
            0, each side has the threshold of least squared error.
    """

    paper: ClassVar[str] = (
        "Zhu et al., Trained Ternary Quantization, ICLR 2017, section 3; with the minimum in "
        "closed form in place of training"
    )
    good_for: ClassVar[str] = (
        "ternary weights: about 1 dB better than twn, and with GPTQ as good as mse with 2 bits"
    )
    least_bits: ClassVar[int] = 2
    most_bits: ClassVar[int] = 2

    t: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return what each row has below zero, 0, and what it has above."""
        above, below = np.maximum(rows, 0), np.maximum(-rows, 0)
        if not self.t:
            highs, lows = best_magnitude(above), best_magnitude(below)
            return to_nearest(rows, np.stack([-lows, np.zeros_like(lows), highs], axis=1))
        limit = self.t * np.abs(rows).max(axis=1, initial=0, keepdims=True).astype(np.float64)
        highs, lows = mean_above(above, limit), mean_above(below, limit)
        index = 1 + (rows > limit).astype(np.intp) - (rows < -limit)
        return Codebook(np.stack([-lows, np.zeros_like(lows), highs], axis=1), index)
