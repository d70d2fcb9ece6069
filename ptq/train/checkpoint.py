"""What the built-in trainer goes on from after it was stopped, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ptq.errors import ConfigError, TrainingError
from ptq.files import write_atomically
from ptq.train.arrays import packed, read_arrays
from ptq.train.job import Evaluation

_ABOUT = "about"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Where training was.

    Attributes:
        settings: all that the outcome depends on, as text by name.
        steps: how many were done. The order of the samples follows from it and the seed.
        evaluations: all so far.
        without_gain: how many of them, at the end, were no better than the best.
    """

    settings: dict[str, str]
    steps: int
    evaluations: tuple[Evaluation, ...]
    without_gain: int


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of training.

    Attributes:
        about: where it was.
        parameters: float32, by name.
        best: those of the best evaluation.
        moments: those of the optimizer.
    """

    about: About
    parameters: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray]
    moments: Mapping[str, np.ndarray]

    def save(self, path: Path) -> None:
        """Write it; a kill leaves the one before."""
        arrays = {_ABOUT: np.frombuffer(msgspec.json.encode(self.about), np.uint8)}
        for part in ("parameters", "best", "moments"):
            arrays |= {f"{part}/{name}": a for name, a in getattr(self, part).items()}
        write_atomically(path, packed(arrays))

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read it.

        Raises:
            TrainingError: the file is damaged.
        """
        arrays = read_arrays(path)
        try:
            about = msgspec.json.decode(arrays.pop(_ABOUT).tobytes(), type=About)
        except (KeyError, msgspec.MsgspecError) as error:
            raise TrainingError(
                f"'{path}' is no checkpoint of this version of ptq; start anew with --restart"
            ) from error
        parts: dict[str, dict[str, np.ndarray]] = {"parameters": {}, "best": {}, "moments": {}}
        for key, array in arrays.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = array
        return cls(about, parts["parameters"], parts["best"], parts["moments"])

    def require(self, settings: Mapping[str, str], path: Path) -> None:
        """Raise `ConfigError` unless it was made with these settings."""
        before = self.about.settings
        differing = [
            f"{name} was {before.get(name, 'not set')} and is {settings.get(name, 'not set')}"
            for name in sorted({*settings, *before})
            if settings.get(name) != before.get(name)
        ]
        if differing:
            raise ConfigError(
                f"'{path}' cannot be gone on from: {'; '.join(differing)}; give the same options, "
                "or start anew with --restart"
            )
