"""What a range method is, and how to find one by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from ptq.calib.levels import Levels
from ptq.errors import CalibrationError
from ptq.numerics.qtype import QType
from ptq.registry import Registry
from ptq.stats.base import TensorStats


@dataclass(frozen=True, slots=True)
class Range:
    """A clipping range: finite, ``lo <= 0 <= hi``.

    Raises:
        CalibrationError: it is not.
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi)):
            raise CalibrationError("the range is not finite; check the data for NaN and infinity")
        if not self.lo <= 0 <= self.hi:
            raise CalibrationError(f"the range {self.lo}..{self.hi} does not include zero")

    @property
    def max_abs(self) -> float:
        """The larger of ``|lo|`` and ``|hi|``: what a symmetric grid covers."""
        return max(-self.lo, self.hi)

    def clipped(self, lo: float, hi: float) -> Range:
        """Return what this range and ``lo .. hi`` have in common, zero included."""
        return Range(min(max(self.lo, lo), 0.0), max(min(self.hi, hi), 0.0))


class Solver(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="method", forbid_unknown_fields=True
):
    """A range method; its fields are its options, its tag is its name.

    Attributes:
        title: the first line of the docstring.
        paper: where the method comes from.
        good_for: when to take it, in a few words, as `ptq methods` says it.
        two_sided: what it does with tensors of both signs, where its paper has none; else empty.
        power_of_two: whether every range is that of a signed grid of ``2^bits`` codes and a scale
            ``2^-n``; then `ptq.numerics.affine.exponent_of_range` gives ``n``.
    """

    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    good_for: ClassVar[str] = ""
    two_sided: ClassVar[str] = ""
    power_of_two: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.title = (cls.__doc__ or "").partition("\n")[0]

    @property
    def runs_network(self) -> bool:
        """Whether it stands for a search over the network's output.

        `solve` is then only the start of it, and the method is for a whole model.
        """
        return False

    @property
    def uniform(self) -> bool:
        """Whether values go to the nearest code of a uniform grid; else `levels` says where to."""
        return True

    def solve(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Range:
        """Return the clipping range of an activation tensor.

        But for powers of two, the range lies within the data's extremes and zero. A symmetric
        quantizer covers ``max_abs`` of it on both sides.

        Args:
            stats: what is known of the tensor.
            qtype: the grid.
            symmetric: whether the zero point is in the middle of the grid.

        Raises:
            CalibrationError: the statistics are of no values.
        """
        raise NotImplementedError

    def levels(self, stats: TensorStats, qtype: QType, *, symmetric: bool) -> Levels | None:
        """Return what values become where that is no uniform grid.

        Asked for grids of fewer than 8 bits only, and of methods that are not `uniform`.

        Args:
            stats: what is known of the tensor.
            qtype: the grid that the levels stand in place of: they are at most as many.
            symmetric: as of `solve`.

        Returns:
            The levels, or ``None`` for the nearest code of the range that `solve` gives.
        """
        return None


def data_range(stats: TensorStats) -> Range:
    """Return the extremes of the data, and zero.

    Raises:
        CalibrationError: there are no data.
    """
    if not stats.minmax.count:
        raise CalibrationError("no value was observed; calibrate with data that reaches the tensor")
    return Range(min(stats.minmax.lo, 0.0), max(stats.minmax.hi, 0.0))


_REGISTRY = Registry("calibration method", "ptq.calib", Solver)


def solvers() -> dict[str, type[Solver]]:
    """Return all range methods by name, those of other distributions included."""
    return _REGISTRY.methods()


def solver(name: str, **options: object) -> Solver:
    """Return the range method of this name with these options.

    Raises:
        ConfigError: there is no such method or option, or the value does not fit.
    """
    return _REGISTRY.make(name, options)


def parse_method(text: str) -> Solver:
    """Return the range method that a text like ``kl`` or ``kl:bins=4096,strict=true`` describes.

    Raises:
        ConfigError: as `solver`, or the text is not of that form.
    """
    return _REGISTRY.parse(text)
