"""What a rounding method is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from ptq.numerics.arrays import F64
from ptq.numerics.solutions import Solution


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A weight to round, as a stack of matrices: one for each group, its columns the inputs.

    Attributes:
        w: the weight, float64 of shape ``(groups, rows, columns)``.
        nearest: where to start: its codes rounded to nearest, and what they mean.
        moments: sums of products of inputs, shape ``(groups, columns, columns)``. The squared error
            of the outputs of a row is ``(w - Q(w)) moments (w - Q(w))^T``.
        damping: what to add to the diagonal of the moments, as a share of its mean; above 0. The
            less, the better on this data, and the worse on other data.
        block: how many columns of a row share a scale that may change; ``None`` if scales stay.
        free_levels: whether each row may have other levels, as many, in ``Grid.levels``.
    """

    w: F64
    nearest: Solution
    moments: F64
    damping: float
    block: int | None
    free_levels: bool = False


class Rounder(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="method", forbid_unknown_fields=True
):
    """A rounding method; its fields are its options, its tag is its name.

    Attributes:
        paper: where it comes from.
        good_for: when to take it, in a few words, as `ptq methods` says it.
    """

    paper: ClassVar[str] = ""
    good_for: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """The name of the method."""
        return str(self.__struct_config__.tag)

    def solutions(self, task: Task) -> Iterator[Solution]:
        """Yield codes, in one way or in several, of which the best on other data is taken.

        The first keeps the scales that there are, unless there is nothing without other ones; with
        weights of 8 bits it alone is looked at. All depend on the task and the options only.
        """
        raise NotImplementedError
