"""What a quantization works from, beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptq.data import Dataset, ImageOptions
from ptq.errors import ConfigError
from ptq.proof import Evidence


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a quantization works from, beside the model.

    Attributes:
        calibration: the calibration data.
        statistics: a statistics file to use in its place.
        evaluation: held-out data to measure accuracy on.
        labels: the right class of every evaluation row.
        images: how the calibration images were prepared, if the user said so.
        trial: what to measure on in place of the calibration data, where that is made up.
    """

    calibration: Dataset | None = None
    statistics: Path | None = None
    evaluation: Dataset | None = None
    labels: np.ndarray | None = None
    images: ImageOptions | None = None
    trial: Dataset | None = None

    def evidence(self) -> Evidence | None:
        """Return what accuracy can be measured on: held-out data if there is any."""
        if self.evaluation is not None:
            return Evidence(self.evaluation, self.labels, held_out=True)
        if self.labels is not None:
            raise ConfigError("labels need evaluation data; give --eval-data as well")
        data = self.trial or self.calibration
        if data is not None:
            return Evidence(data, None, held_out=False)
        return None

    def notices(self) -> tuple[str, ...]:
        """Return what the readers had to say, once each."""
        said = [n for data in (self.calibration, self.evaluation) if data for n in data.notices]
        return tuple(dict.fromkeys(said))
