"""WRPN's quantizer of weights: clipped to [-1, 1]."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.weights.codebook import Codebook, CodebookQuantizer
from ptq.weights.gain import least_squares_gain


class WrpnQuantizer(CodebookQuantizer, frozen=True, tag="wrpn"):
    """Even symmetric levels up to the largest magnitude of each channel, and a gain.

    ``round((2^(b-1) - 1) clip(w, -1, 1)) / (2^(b-1) - 1)`` (section 4). The paper trains from the
    start, and with the widened layers after which it is called. Of a network that is trained, 1 is
    the largest magnitude of the channel, and levels are multiplied by the gain of least squared
    error.
    """

    paper: ClassVar[str] = "Mishra et al., WRPN: Wide Reduced-Precision Networks, ICLR 2018"
    good_for: ClassVar[str] = (
        "a baseline, 2 to 5 dB less than `mse` at 4 bits; training makes it good"
    )
    least_bits: ClassVar[int] = 2

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        most = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
        codes = clipped_codes(rows / np.where(most > 0, most, 1.0)[:, None], bits)
        scale = least_squares_gain(rows, codes)
        top = 2 ** (bits - 1) - 1
        return Codebook(np.arange(-top, top + 1) * scale[:, None], codes + top, scale)


def clipped_codes(w: F64, bits: int) -> AnyArray:
    """Return the integers of weights of which 1 is the largest code."""
    return np.asarray(np.rint((2 ** (bits - 1) - 1) * np.clip(w, -1.0, 1.0)), np.intp)
