"""The errors a user may see; each class knows the exit code of the command that raises it."""

from __future__ import annotations

from typing import ClassVar


class PtqError(Exception):
    """Something the user can act on; the message says what is wrong, where, and the remedy."""

    exit_code: ClassVar[int] = 1


class ConfigError(PtqError):
    """An option, an argument or a configuration file is wrong."""

    exit_code: ClassVar[int] = 2


class DataError(PtqError):
    """Calibration or evaluation data cannot be read, or does not fit the model."""


class ModelError(PtqError):
    """A model file cannot be read, or is not a valid ONNX model."""


class UnsupportedError(ModelError):
    """A valid model that `ptq` refuses, for the reason the message gives."""


class CalibrationError(PtqError):
    """Statistics cannot be collected, are stale, or do not determine a range."""


class VerificationError(PtqError):
    """The quantized model does not load, does not run, or gives values that are not finite."""


class TrainingError(PtqError):
    """A training job is damaged, or a trainer fails."""


class ThresholdError(PtqError):
    """The result is sound, but misses a threshold that the user set."""

    exit_code: ClassVar[int] = 3
