"""Rows of values in ascending order, with their sums: what levels for them cost, without a pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptq.numerics.arrays import F32, F64, I64, AnyArray


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """The values of each row in ascending order, and what they sum up to.

    Levels of which each value takes the nearest cut a sorted row into runs, and counts and sums of
    runs are differences of what is kept here. So a step of a method costs by the number of levels,
    and by the number of values only as its logarithm.

    Attributes:
        values: float64, shape ``(all rows, values)``.
        sums: of the first 0, 1, 2, ... of a row, shape ``(all rows, values + 1)``.
        squares: the sum of squares of each row that is meant, shape ``(rows,)``.
        rows: which ones are meant, shape ``(rows,)``.
    """

    values: F64
    sums: F64
    squares: F64
    rows: I64

    @classmethod
    def of(cls, rows: F32 | F64) -> Ordered:
        """Sort rows, float of shape ``(rows, values)``. Takes 16 bytes for each value."""
        # in this layout each row is summed in one way, whatever the layout of the weight
        values = np.sort(np.array(rows, order="C"), axis=1).astype(np.float64)
        sums = np.zeros((len(values), values.shape[1] + 1))
        np.cumsum(values, axis=1, out=sums[:, 1:])
        return cls(values, sums, np.einsum("ij,ij->i", values, values), np.arange(len(values)))

    @property
    def size(self) -> int:
        """How many values a row has."""
        return int(self.values.shape[1])

    def some(self, chosen: AnyArray) -> Ordered:
        """Return some of the rows, by index or by mask; nothing is copied."""
        return replace(self, squares=self.squares[chosen], rows=self.rows[chosen])

    def largest(self) -> F64:
        """Return the largest magnitude of each row, 0 of one without values; shape ``(rows,)``."""
        if not self.size:
            return np.zeros(len(self.rows))
        ends = self.values[self.rows[:, None], [0, -1]]
        return np.asarray(np.abs(ends).max(axis=1))

    def up_to(self, limits: F64) -> I64:
        """Return how many values of each row are not above each of its limits.

        Args:
            limits: shape ``(rows, limits)``.

        Returns:
            Counts, in the shape of ``limits``. By bisection, in all rows at once.
        """
        size, flat = self.size, self.values.reshape(-1)
        if not size:
            return np.zeros(limits.shape, np.int64)
        first = size * self.rows[:, None]
        end, found = first + size, np.broadcast_to(first, limits.shape)
        step = 1 << (size.bit_length() - 1)
        while step:
            tried = found + step
            fits = (tried <= end) & (flat[np.minimum(tried, end) - 1] <= limits)
            found = np.where(fits, tried, found)
            step >>= 1
        return found - first

    def runs(self, cuts: I64) -> tuple[F64, F64]:
        """Return how many values lie between cuts, and what they sum up to.

        Args:
            cuts: ascending counts of values, shape ``(rows, cuts)``; the ends are added.

        Returns:
            Counts and sums, float64, of shape ``(rows, cuts + 1)``.
        """
        ends = np.pad(cuts, ((0, 0), (1, 1)))
        ends[:, -1] = self.size
        sums = self.sums[self.rows[:, None], ends]
        return np.diff(ends, axis=1).astype(np.float64), np.diff(sums, axis=1)

    def nearest(self, levels: F64) -> tuple[F64, F64]:
        """Return how many values are nearest to each level, and what they sum up to.

        Args:
            levels: ascending, shape ``(rows, levels)``. The lower one has what is as near to two.
        """
        return self.runs(self.up_to((levels[:, 1:] + levels[:, :-1]) / 2))

    def error(self, levels: F64) -> F64:
        """Return the sum of squared differences from the nearest levels, shape ``(rows,)``.

        Args:
            levels: ascending, shape ``(rows, levels)``.
        """
        return self.error_of(levels, *self.nearest(levels))

    def error_of(self, levels: F64, counts: F64, sums: F64) -> F64:
        """Return the sum of squared differences from the levels of runs, shape ``(rows,)``.

        It is a difference of sums: exact to about 1e-15 of the sum of squares of the row.

        Args:
            levels: of each run, shape ``(rows, runs)``.
            counts: how many values have it, same shape.
            sums: of these values, same shape.
        """
        error = self.squares + (levels * (levels * counts - 2 * sums)).sum(axis=1)
        return np.asarray(np.maximum(error, 0.0))
