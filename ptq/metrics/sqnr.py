"""Signal to quantization noise ratio of the outputs."""

from __future__ import annotations

import numpy as np

from ptq.metrics.base import Sums
from ptq.metrics.output_difference import OutputDifference


class SignalToNoise(OutputDifference, frozen=True, tag="sqnr"):
    """Power of the float model's outputs over the power of the difference, in dB."""

    unit = "dB"

    @property
    def title(self) -> str:
        """``SQNR``."""
        return self._titled("SQNR")

    def figure(self, sums: Sums) -> Sums:
        """Return decibels: infinite without noise, minus infinity for noise alone."""
        noise, signal, count = sums[..., 0], sums[..., 2], sums[..., 4]
        with np.errstate(divide="ignore"):
            decibels = 10 * (np.log10(signal) - np.log10(np.where(noise == 0, 1.0, noise)))
        return np.where(count == 0, np.nan, np.where(noise == 0, np.inf, decibels))
