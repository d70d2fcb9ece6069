"""How far a quantized output is from the float one: SQNR, cosine, maximum error, top-k."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptq.errors import VerificationError
from ptq.numerics.arrays import F64, AnyArray


@dataclass(frozen=True, slots=True)
class ErrorSums:
    """Sums over pairs of outputs, from which every error measure follows; add them to pool.

    Attributes:
        noise: sum of ``(ref - out)^2``.
        dot: sum of ``ref * out``.
        ref_sq: sum of ``ref^2``, the signal.
        out_sq: sum of ``out^2``.
        max_abs: largest ``|ref - out|``.
        count: number of values.
        drift: sum of ``out - ref``.
    """

    noise: float = 0.0
    dot: float = 0.0
    ref_sq: float = 0.0
    out_sq: float = 0.0
    max_abs: float = 0.0
    count: int = 0
    drift: float = 0.0

    @classmethod
    def of(cls, ref: AnyArray, out: AnyArray) -> ErrorSums:
        """Return the sums over one pair of arrays, in float64.

        A NaN on either side makes the measures NaN.

        Raises:
            VerificationError: the shapes differ.
        """
        _check_shapes(ref, out)
        a = np.asarray(ref, np.float64).ravel()
        b = np.asarray(out, np.float64).ravel()
        with np.errstate(invalid="ignore", over="ignore"):
            error = a - b
            return cls(
                noise=_dot(error, error),
                dot=_dot(a, b),
                ref_sq=_dot(a, a),
                out_sq=_dot(b, b),
                max_abs=float(np.max(np.abs(error), initial=0.0)),
                count=a.size,
                drift=-float(error.sum()),
            )

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(
            self.noise + other.noise,
            self.dot + other.dot,
            self.ref_sq + other.ref_sq,
            self.out_sq + other.out_sq,
            # max() of Python drops a NaN that comes second.
            float(np.maximum(self.max_abs, other.max_abs)),
            self.count + other.count,
            self.drift + other.drift,
        )

    @property
    def signal(self) -> float:
        """Sum of ``ref^2``."""
        return self.ref_sq

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise in dB.

        Infinite without noise, even if there is no signal; minus infinity for noise alone.
        """
        if math.isnan(self.noise) or math.isnan(self.ref_sq):
            return math.nan
        if self.noise == 0:
            return math.inf
        if self.ref_sq == 0 or math.isinf(self.noise):
            return -math.inf
        return 10 * (math.log10(self.ref_sq) - math.log10(self.noise))

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the outputs, in -1..1.

        1 if they are equal, even if both are zero; 0 if only one is zero.
        """
        if self.noise == 0:
            return 1.0
        length = math.sqrt(self.ref_sq) * math.sqrt(self.out_sq)
        if length == 0:
            return 0.0
        cosine = self.dot / length
        return cosine if math.isnan(cosine) else min(1.0, max(-1.0, cosine))

    @property
    def mean_shift(self) -> float:
        """Mean of ``out - ref``; 0 for no values."""
        return self.drift / self.count if self.count else 0.0

    @property
    def rms(self) -> float:
        """Root mean square of ``ref``; 0 for no values."""
        return math.sqrt(self.ref_sq / self.count) if self.count else 0.0

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; 0 for no values."""
        return math.sqrt(self.noise / self.count) if self.count else 0.0


def sqnr_db(ref: AnyArray, out: AnyArray) -> float:
    """Return the signal to quantization noise ratio in dB; see `ErrorSums.sqnr_db`."""
    return ErrorSums.of(ref, out).sqnr_db


def cosine(ref: AnyArray, out: AnyArray) -> float:
    """Return the cosine of the angle between two arrays; see `ErrorSums.cosine`."""
    return ErrorSums.of(ref, out).cosine


def max_abs_error(ref: AnyArray, out: AnyArray) -> float:
    """Return the largest absolute difference; 0 for empty arrays."""
    return ErrorSums.of(ref, out).max_abs


def topk_agreement(ref: AnyArray, out: AnyArray, k: int = 1) -> float:
    """Return the share of rows of which the best class of ``ref`` is among the best k of ``out``.

    Args:
        ref: scores, last axis is the classes; of equal scores the first counts as better.
        out: scores, same shape.
        k: how many classes of ``out`` count.

    Raises:
        VerificationError: the shapes differ, or there are no scores.
    """
    _check_shapes(ref, out)
    if ref.ndim == 0 or not ref.size:
        raise VerificationError("top-k agreement needs at least one row of scores")
    rows, others = ref.reshape(-1, ref.shape[-1]), out.reshape(-1, ref.shape[-1])
    best = np.argmax(rows, axis=1)[:, None]
    score = np.take_along_axis(others, best, axis=1)
    earlier = np.arange(ref.shape[-1]) < best
    rank = np.sum((others > score) | ((others == score) & earlier), axis=1)
    # A NaN score is no agreement, whatever the comparisons above say.
    return float(np.mean((rank < k) & ~np.isnan(score[:, 0])))


def _dot(a: F64, b: F64) -> float:
    """Return ``a @ b``; the threads of BLAS would wait for one another on a busy machine."""
    return float(np.einsum("i,i->", a, b))


def _check_shapes(ref: AnyArray, out: AnyArray) -> None:
    if ref.shape != out.shape:
        raise VerificationError(
            f"outputs of shapes {ref.shape} and {out.shape} cannot be compared; "
            "run both models on the same inputs"
        )
