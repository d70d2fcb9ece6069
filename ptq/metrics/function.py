"""A user's own metric: a Python function, named as ``package.module:function``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptq.data.function import error_in_short, find_function
from ptq.data.labels import Labels
from ptq.errors import DataError, PtqError
from ptq.metrics.base import Metric, Outputs, Sums, ratio
from ptq.metrics.outputs import rows_of


class FunctionMetric(Metric, frozen=True):
    """The mean of what a function gives; higher is better.

    It is called once for each feed and model as ``function(outputs, target)``: ``outputs`` are the
    model's, a dict of arrays by name; ``target`` is an array of this feed's labels if there are
    labels, one for each row, else the float model's outputs. It returns a number, and the feed is
    a unit, or one number for each row, and a row is one. The rows of a feed are the leading axis
    that all outputs share.

    Attributes:
        source: where the function is.
    """

    unit = "number"
    labels = "optional"
    empty = "the function gives no numbers"

    source: str

    @classmethod
    def of(cls, source: str) -> FunctionMetric:
        """Return the metric.

        Raises:
            ConfigError: the module cannot be imported, or holds no such function.
        """
        _function(source)
        return cls(source=source)

    @property
    def title(self) -> str:
        """Its name, without the module."""
        return self.source.partition(":")[2]

    @property
    def text(self) -> str:
        """``package.module:function``."""
        return self.source

    def answers(self, reference: Outputs) -> int:
        """Return the number of rows."""
        return rows_of(reference)

    def measure(self, got: Outputs, reference: Outputs, labels: Labels | None) -> Sums:
        """Return ``(value, 1)`` for each unit."""
        target = dict(reference) if labels is None else np.asarray(labels)
        try:
            value = _function(self.source)(dict(got), target)
        except PtqError:
            raise
        except Exception as error:
            raise DataError(f"metric '{self.source}' raised {error_in_short(error)}") from error
        values = self._checked(value, rows_of(reference))
        return np.stack([values, np.ones(len(values))], axis=1)

    def _checked(self, value: object, rows: int) -> Sums:
        try:
            values = np.asarray(value)
        except ValueError:  # lists of uneven length
            values = np.asarray(None)
        if values.dtype.kind not in "biuf":
            raise DataError(
                f"metric '{self.source}' returned a {type(value).__name__}; "
                "return a number, or an array of one for each row"
            )
        if values.ndim and values.shape != (rows,):
            raise DataError(
                f"metric '{self.source}' returned an array of shape {values.shape}; "
                f"return a number, or one for each of the {rows} rows"
            )
        if not np.isfinite(values).all():
            raise DataError(
                f"metric '{self.source}' returned NaN or infinity; return finite numbers"
            )
        return np.atleast_1d(values).astype(np.float64)

    def figure(self, sums: Sums) -> Sums:
        """Return the mean over the units."""
        return ratio(sums[..., 0], sums[..., 1])


def _function(source: str) -> Callable[..., Any]:
    return find_function(source, "a function of outputs and target that returns a number")
