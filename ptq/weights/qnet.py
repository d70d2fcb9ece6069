"""A fixed set of integers, times a gain for each channel."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ptq.numerics.arrays import F32, F64
from ptq.numerics.bases import fitted, levels_of
from ptq.numerics.ordered import Ordered
from ptq.weights.codebook import Codebook, CodebookQuantizer, to_nearest

#: Where gains are looked for: the largest level as shares of the largest weight.
_SHARES = np.geomspace(0.05, 1.2, 32)


class QnetQuantizer(CodebookQuantizer, frozen=True, tag="qnet"):
    """A fixed set of integer levels times a gain of each channel: of least squared error.

    The paper sums steps at trained places between fixed levels: ``{-1, 1}``, ``{-1, 0, 1}``,
    ``{-4, -2, -1, 0, 1, 2, 4}``, here with 1, 2 and 3 bits; with 4, up to 64. Without training, a
    step belongs midway between two levels, and levels and the gain ``<w, y> / <y, y>`` are fitted
    by turns, from the best of 32 gains (from k-means in the paper).

    Attributes:
        levels: ``powers`` of two beside 0, or ``even`` steps, as in ``{-3, -2, -1, 0, 1, 2, 3}``.
    """

    paper: ClassVar[str] = "Yang et al., Quantization Networks, CVPR 2019, section 3 (the levels)"
    good_for: ClassVar[str] = (
        "levels that are shifts, times a gain: with 3 bits as near to the weights as even steps"
    )
    most_bits: ClassVar[int] = 4

    levels: Literal["powers", "even"] = "powers"

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and the nearest one to each weight."""
        values, levels = Ordered.of(rows), self._levels(bits)
        gains = _best_start(values, levels)
        gains, _ = fitted(values, levels[:, None], gains[:, None])
        return to_nearest(rows, levels_of(levels[:, None], gains), gains[:, 0])

    def _levels(self, bits: int) -> F64:
        """Return the integers that the levels of so many bits are multiples of, ascending."""
        if bits == 1:
            return np.array([-1.0, 1.0])
        steps = np.arange((1 << (bits - 1)) - 1)
        above = 2.0**steps if self.levels == "powers" else steps + 1.0
        return np.concatenate([-above[::-1], [0.0], above])


def _best_start(values: Ordered, levels: F64) -> F64:
    """Return the gain of each row with the least error of those that are tried."""
    most = values.largest()
    best: F64 = most / levels[-1]
    least = np.full(len(most), np.inf)
    for share in _SHARES:
        gains = share * most / levels[-1]
        errors = values.error(gains[:, None] * levels)
        best = np.where(errors < least, gains, best)
        least = np.minimum(errors, least)
    return best
