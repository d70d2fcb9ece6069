"""How far a network's outputs are from the float model's: the score of all that compares them.

Each output is measured by its own signal, and the outputs of a network count alike. Boxes in pixels
would else outvote the class scores of the same detector: on PicoDet, the range method of the least
error in one sum has AP50 0.59, and that of the least error by this score 0.67.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptq.errors import VerificationError
from ptq.numerics.arrays import F64

#: A sample counts for no more than this, or those that are all but exact would decide.
_MOST_DB = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class OutputScore:
    """Compares outputs with those of the float model on the same samples.

    The error of a sample is the mean over the floating-point outputs of ``|wanted - found|^2`` over
    the mean of ``|wanted|^2`` among the samples. Of all samples, the mean in dB counts: of squared
    errors, one or two samples often make up most of the sum, and would choose alone.

    Attributes:
        wanted: the float model's outputs, by sample; where they are infinite, nothing counts.
        floating: positions of the floating-point outputs.
        signals: float64, mean energy of each of these in a sample; more than 0.
    """

    wanted: Sequence[Sequence[np.ndarray]]
    floating: tuple[int, ...]
    signals: F64

    @classmethod
    def of(cls, wanted: Sequence[Sequence[np.ndarray]]) -> OutputScore:
        """Return the score of these references.

        An output that is always zero is measured by the mean signal of all; if all are, by 1.

        Raises:
            VerificationError: there is no floating-point output.
        """
        floating = tuple(i for i, a in enumerate(wanted[0]) if np.issubdtype(a.dtype, np.floating))
        if not floating:
            raise VerificationError("the model has no floating-point output to compare")
        signals = np.mean([[_signal(sample[i]) for i in floating] for sample in wanted], axis=0)
        return cls(wanted, floating, np.where(signals > 0, signals, signals.mean() or 1.0))

    def of_samples(self, positions: Sequence[int]) -> OutputScore:
        """Return the score on some of the samples, relative to the signal of all of them."""
        return replace(self, wanted=[self.wanted[i] for i in positions])

    def errors(
        self, found: Iterable[Sequence[np.ndarray]], *, limit: float = math.inf
    ) -> F64 | None:
        """Return the error of each sample.

        Args:
            found: the other model's outputs by sample; taken one by one.
            limit: stop as soon as the sum is certain to exceed this.

        Returns:
            One number for each sample, or ``None``: too large, not finite, or of another shape.
        """
        errors: list[float] = []
        for error in self._each(found):
            errors.append(error)
            # written so that NaN exceeds any limit
            if not sum(errors) <= limit or not math.isfinite(error):
                return None
        return np.array(errors)

    def error(self, found: Iterable[Sequence[np.ndarray]], *, limit: float = math.inf) -> float:
        """Return the error of all samples: what `mean_db` says, as a share of the signal; or 0.

        Args:
            found: the other model's outputs by sample; taken one by one.
            limit: return infinity as soon as the result is certain to exceed this.
        """
        errors = np.zeros(len(self.wanted))
        result = math.inf
        for i, error in enumerate(self._each(found)):
            errors[i] = error
            # as if all that follow were exact
            result = 10 ** (-mean_db(errors) / 10)
            if result > limit or not math.isfinite(error):
                return math.inf
        return result if errors.any() else 0.0

    def _each(self, found: Iterable[Sequence[np.ndarray]]) -> Iterator[float]:
        for wanted, got in zip(self.wanted, found, strict=True):
            noises = [_noise(wanted[i], got[i]) for i in self.floating]
            yield float(np.mean(noises / self.signals))


def mean_db(errors: F64) -> float:
    """Return the mean SQNR of samples, of which none counts for more than 60 dB.

    Args:
        errors: what `OutputScore.errors` returns.
    """
    return float(decibels(errors).mean())


def decibels(errors: F64) -> F64:
    """Return the SQNR of each sample, at most 60 dB."""
    return -10 * np.log10(np.maximum(errors, 10 ** (-_MOST_DB / 10)))


def _signal(wanted: np.ndarray) -> float:
    return _energy(wanted[np.isfinite(wanted)])


def _noise(wanted: np.ndarray, got: np.ndarray) -> float:
    if wanted.shape != got.shape:
        return math.inf
    finite = np.isfinite(wanted)
    return _energy(wanted[finite].astype(np.float64) - got[finite])


def _energy(values: np.ndarray) -> float:
    flat = values.reshape(-1).astype(np.float64)
    return float(np.vdot(flat, flat))
