"""Which outputs of a model a metric is about, and what of two outputs can be compared."""

from __future__ import annotations

import numpy as np

from ptq.errors import ConfigError, DataError, VerificationError
from ptq.metrics.base import Outputs


def named(outputs: Outputs, name: str) -> np.ndarray:
    """Return the output of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in outputs:
        raise ConfigError(f"the model has no output '{name}'; choose one of: {', '.join(outputs)}")
    return outputs[name]


def floating(outputs: Outputs, name: str = "") -> list[str]:
    """Return the names of the floating-point outputs, or the one that is asked for.

    Raises:
        ConfigError: the output that is asked for does not exist, or is not floating-point.
        VerificationError: there is none.
    """
    if name and not _is_floating(named(outputs, name)):
        raise ConfigError(f"output '{name}' is {outputs[name].dtype}; name a floating-point one")
    found = [name] if name else [n for n, value in outputs.items() if _is_floating(value)]
    if not found:
        raise VerificationError("the model has no floating-point output to compare")
    return found


def only(outputs: Outputs, name: str, what: str) -> str:
    """Return the output that is asked for, or the only floating-point one.

    Args:
        outputs: of the model.
        name: the output that the option ``output`` names, if any.
        what: what it holds, for the error.

    Raises:
        ConfigError: there are several, or there is no such output.
        VerificationError: there is none.
    """
    found = floating(outputs, name)
    if len(found) > 1:
        raise ConfigError(
            f"several outputs could hold {what}; name one with output=: {', '.join(found)}"
        )
    return found[0]


def pair(got: Outputs, reference: Outputs, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one output of the judged and of the float model.

    Raises:
        VerificationError: their shapes differ.
    """
    a, b = got[name], reference[name]
    if a.shape != b.shape:
        raise VerificationError(
            f"output '{name}' has shape {a.shape}, the float model gives {b.shape}"
        )
    return a, b


def rows_of(outputs: Outputs) -> int:
    """Return the leading axis that all outputs have in common, or 1 if they have none.

    Raises:
        DataError: there is no output.
    """
    if not outputs:
        raise DataError("the model has no outputs")
    first = {value.shape[0] if value.ndim else 1 for value in outputs.values()}
    return first.pop() if len(first) == 1 else 1


def _is_floating(value: np.ndarray) -> bool:
    return np.issubdtype(np.asarray(value).dtype, np.floating)
