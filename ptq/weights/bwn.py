"""Weights of one bit: a sign, and a scale for each channel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ptq.numerics.arrays import F32
from ptq.weights.codebook import Codebook, CodebookQuantizer


class BwnQuantizer(CodebookQuantizer, frozen=True, tag="bwn"):
    """The sign of each weight, times the mean magnitude of its channel: least squared error.

    ``B = sign(w)``, of 0 it is 1, and ``alpha = mean |w|``, which is the minimum of
    ``|w - alpha B|^2`` (equation 6). Of normal weights it loses ``1 - 2 / pi``: 4.40 dB are left.

    Not here: signs of inputs, with a scale for each place (XNOR-Net of the same paper), which no
    kernel of onnxruntime multiplies; and BinaryConnect (Courbariaux et al., NeurIPS 2015), which is
    training with signs of weights of scale 1.
    """

    paper: ClassVar[str] = (
        "Rastegari et al., XNOR-Net: ImageNet Classification Using Binary Convolutional Neural "
        "Networks, ECCV 2016, section 3.1 (Binary-Weight-Networks)"
    )
    good_for: ClassVar[str] = "a bit a weight, to train from; by itself it ruins a network"
    most_bits: ClassVar[int] = 1

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return minus and plus the mean magnitude of each row."""
        alpha = np.abs(rows.astype(np.float64)).sum(axis=1) / max(rows.shape[1], 1)
        return Codebook(np.stack([-alpha, alpha], axis=1), (rows >= 0).astype(np.intp), alpha)
