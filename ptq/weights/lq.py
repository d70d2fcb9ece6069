"""Weights as a sum of signs, bases and signs fitted to one another."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32, F64
from ptq.numerics.bases import fitted, levels_of, residuals, signs
from ptq.numerics.ordered import Ordered
from ptq.weights.codebook import Codebook, CodebookQuantizer, to_nearest

#: Bases by their number, as shares of the root mean square: of Gauss and of Laplace distributed
#: weights, the best of 300 starts at random.
_STARTS = {
    2: ((0.982, 0.529), (1.127, 0.707)),
    3: ((0.989, 0.749, 0.451), (1.341, 1.015, 0.587)),
    4: ((1.130, 0.710, 0.557, 0.296), (1.331, 1.149, 0.941, 0.609)),
    5: ((1.038, 0.970, 0.504, 0.377, 0.249), (1.607, 1.506, 0.783, 0.587, 0.380)),
}

#: Steps from each start, of which the best goes on.
_FIRST = 4


class LqQuantizer(CodebookQuantizer, frozen=True, tag="lq"):
    """Sums of as many bases as bits, each added or taken away: of least squared error.

    Levels are ``v^T b`` for all ``b`` of ``{-1, 1}^K``. By turns, each weight takes the nearest
    level, and the bases become ``v = (B^T B)^-1 B^T w`` (algorithm 1), which never increases the
    error. It ends in a minimum near its start, so that there are four, of which each channel has
    the best: the bases of `residual`, even steps, and those of Gauss and Laplace distributed
    weights. The paper trains, with one start and a moving average of ``v``.
    """

    paper: ClassVar[str] = (
        "Zhang et al., LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural "
        "Networks, ECCV 2018, section 3.2 (QEM)"
    )
    good_for: ClassVar[str] = (
        "2 to 4 bits with GPTQ and biases, where it is mostly 1 to 3 dB better than mse; to "
        "nearest, 2 and 3 bits"
    )
    most_bits: ClassVar[int] = 5

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the sums of the bases of each row, and the nearest one to each weight."""
        values, patterns = Ordered.of(rows), signs(bits)
        best, least = fitted(values, patterns, residuals(rows, bits), _FIRST)
        for start in _starts(values, bits):
            bases, errors = fitted(values, patterns, start, _FIRST)
            better = errors < least
            best[better], least[better] = bases[better], errors[better]
        best, _ = fitted(values, patterns, best)
        return to_nearest(rows, levels_of(patterns, best))


def _starts(values: Ordered, bits: int) -> list[F64]:
    """Return bases to start from, each of shape ``(rows, bits)``."""
    if bits == 1:
        return []
    rms = np.sqrt(values.squares / max(values.size, 1))[:, None]
    even = np.sqrt(3) * 0.5 ** np.arange(1, bits + 1)
    return [rms * even, *(rms * np.array(shares) for shares in _STARTS[bits])]
