"""What the metrics share that hold the values of outputs against the float model's."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from ptq.data.labels import Labels
from ptq.metrics.base import Metric, Outputs, Sums
from ptq.metrics.outputs import floating, pair
from ptq.numerics.metrics import ErrorSums


class OutputDifference(Metric, frozen=True):
    """A figure of the difference of the outputs; each feed is a unit.

    Its fields are ``(noise, dot, ref_sq, out_sq, count)``, as `ErrorSums` has them.

    Attributes:
        output: the only output that counts; all floating-point ones if empty, as one vector.
    """

    output: str = ""

    @property
    def basis(self) -> Hashable:
        """The output: all these metrics are figures of the same sums."""
        return OutputDifference, self.output

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return the sums over the values of one feed; a common infinity is left out."""
        total = ErrorSums()
        for name in floating(reference, self.output):
            a, b = pair(got, reference, name)
            finite = np.isfinite(b)
            total += _sums(a, b) if finite.all() else _sums(a[finite], b[finite])
        return np.array([[total.noise, total.dot, total.ref_sq, total.out_sq, total.count]])

    def _titled(self, what: str) -> str:
        return f"{what} of '{self.output}'" if self.output else what


def _sums(got: np.ndarray, reference: np.ndarray) -> ErrorSums:
    if got is not reference:
        return ErrorSums.of(reference, got)
    power = float(np.square(reference, dtype=np.float64).sum())
    return ErrorSums(dot=power, ref_sq=power, out_sq=power, count=reference.size)
