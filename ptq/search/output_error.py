"""How far a network's outputs are from the float model's, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ptq.errors import VerificationError
from ptq.numerics.arrays import F64


def output_signals(references: Sequence[Sequence[np.ndarray]]) -> F64:
    """Return the energy of the float model's floating-point outputs, by sample.

    A sample whose outputs are all zero has the mean energy of all; if all are, it is 1.

    Raises:
        VerificationError: there is no such output.
    """
    if not any(_is_float(a) for wanted in references for a in wanted):
        raise VerificationError("the model has no floating-point output to compare")
    found = [
        sum(_energy(a[np.isfinite(a)]) for a in wanted if _is_float(a)) for wanted in references
    ]
    signals = np.array(found, np.float64)
    return np.where(signals > 0, signals, signals.mean() or 1.0)


def output_errors(
    references: Sequence[Sequence[np.ndarray]],
    found: Iterable[Sequence[np.ndarray]],
    signals: F64,
    *,
    limit: float = math.inf,
) -> F64 | None:
    """Return the squared error of each sample, relative to its signal.

    Args:
        references: the float model's outputs, by sample; where they are infinite, nothing counts.
        found: the other model's; taken one by one.
        signals: what `output_signals` says of the references.
        limit: stop as soon as the sum is certain to exceed this.

    Returns:
        One number for each sample, or ``None``: too large, not finite, or of another shape.
    """
    errors: list[float] = []
    for wanted, got, signal in zip(references, found, signals, strict=True):
        error = sum(_difference(a, b) for a, b in zip(wanted, got, strict=True) if _is_float(a))
        errors.append(error / float(signal))
        # written so that NaN exceeds any limit
        if not sum(errors) <= limit or not math.isfinite(error):
            return None
    return np.array(errors)


def _difference(wanted: np.ndarray, got: np.ndarray) -> float:
    if wanted.shape != got.shape:
        return math.inf
    finite = np.isfinite(wanted)
    return _energy(wanted[finite].astype(np.float64) - got[finite])


def _is_float(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.floating)


def _energy(values: np.ndarray) -> float:
    flat = values.reshape(-1).astype(np.float64)
    return float(np.vdot(flat, flat))
