"""Mean squared error of the outputs."""

from __future__ import annotations

from ptq.metrics.base import Sums, ratio
from ptq.metrics.output_difference import OutputDifference


class MeanSquaredError(OutputDifference, frozen=True, tag="mse"):
    """Mean of the squared differences from the float model's outputs, in their unit squared."""

    unit = "number"
    higher_is_better = False

    @property
    def title(self) -> str:
        """``mean squared error``."""
        return self._titled("mean squared error")

    def figure(self, sums: Sums) -> Sums:
        """Return the noise over the number of values."""
        return ratio(sums[..., 0], sums[..., 4])
