"""What a weight quantizer is, and how to find one by name."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ptq.errors import ConfigError
from ptq.numerics.affine import QParams, QTensor, qparams_from_range, quantize
from ptq.numerics.arrays import F32, F64, AnyArray, finite
from ptq.numerics.qtype import QType
from ptq.registry import Registry


class WeightQuantizer(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="method", forbid_unknown_fields=True
):
    """A weight quantizer; its fields are its options, its tag is its name.

    Attributes:
        title: the first line of the docstring.
        paper: where the method comes from.
        good_for: when to take it, in a few words, as `ptq methods` says it.
        least_bits, most_bits: the widths that it has codes of.
        uniform: whether codes are those of a grid, all of them; else they are those of `levels`,
            with zero points of 0 whatever is asked for.
        runs_network: whether it stands for a search that runs the network, of which `quantize` is
            only the start; such a method is for a whole model.
    """

    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    good_for: ClassVar[str] = ""
    least_bits: ClassVar[int] = 2
    most_bits: ClassVar[int] = 16
    uniform: ClassVar[bool] = True
    runs_network: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.title = (cls.__doc__ or "").partition("\n")[0]

    def quantize(self, w: AnyArray, qtype: QType, *, axis: int | None, symmetric: bool) -> QTensor:
        """Return the codes of a weight.

        Args:
            w: float weight of any shape.
            qtype: the grid. A symmetric quantizer leaves out the lowest code of a signed grid.
            axis: the output-channel axis, each channel of which has a scale; or ``None``.
            symmetric: whether the zero point is in the middle of the grid.

        Raises:
            CalibrationError: a weight is NaN or infinite.
        """
        raise NotImplementedError

    def menu(self) -> tuple[str, ...]:
        """Return the methods that a search over layers has to choose from.

        Empty if that is none but this one. Otherwise what is searched is what a compressed file
        takes, for they differ in how many weights are 0.
        """
        return ()

    @classmethod
    def has_width(cls, bits: int) -> bool:
        """Whether the method has codes of so many bits."""
        return cls.least_bits <= bits <= cls.most_bits

    @classmethod
    def require_width(cls, bits: int) -> None:
        """Refuse a width that the method has no codes of.

        Raises:
            ConfigError: it has none of this one.
        """
        if not cls.has_width(bits):
            name = cls.__struct_config__.tag
            few, many = cls.least_bits, cls.most_bits
            has = f"{few} to {many} bits" if many > few else f"{few} bit{'s' if few > 1 else ''}"
            raise ConfigError(
                f"weight quantizer '{name}' has {has}, not {bits}; choose another --bits, or "
                "another --weight-method"
            )


class RangeQuantizer(WeightQuantizer, frozen=True):
    """A weight quantizer that chooses a clipping range for each channel, then rounds to nearest."""

    def ranges(self, rows: F32, qtype: QType, *, symmetric: bool) -> tuple[F64, F64]:
        """Return lower and upper end for each row.

        Args:
            rows: the weight, shape ``(channels, weights of a channel)``, finite.
            qtype: the grid.
            symmetric: whether the larger absolute end will serve both sides.

        Returns:
            Two arrays of shape ``(channels,)``; zero is added to a range that lacks it.
        """
        raise NotImplementedError

    def quantize(self, w: AnyArray, qtype: QType, *, axis: int | None, symmetric: bool) -> QTensor:
        """Return the codes of a weight; see `WeightQuantizer.quantize`."""
        weight = finite(w)
        if symmetric and qtype.signed and qtype.bits > 1:
            qtype = replace(qtype, narrow=True)
        rows = as_rows(weight, axis)
        lo, hi = self.ranges(rows, qtype, symmetric=symmetric)
        params = qparams_from_range(lo, hi, qtype, symmetric=symmetric, axis=0)
        scale = usual_scale(params.scale, np.any(rows != 0, axis=1))
        params = of_weight(QParams(scale, params.zero_point, qtype, 0), axis, weight.ndim)
        return QTensor(quantize(weight, params), params)


def as_rows(w: F32, axis: int | None) -> F32:
    """Return a weight as a matrix with a row for each channel; a view where that is possible."""
    if axis is None:
        return w.reshape(1, -1)
    rows = np.moveaxis(w, axis, 0)
    return rows.reshape(len(rows), rows[0].size if len(rows) else 0)


def of_weight(rows: QParams, axis: int | None, rank: int) -> QParams:
    """Return the parameters of the rows of `as_rows` as those of the weight itself."""
    if axis is None:
        return QParams(rows.scale.reshape(()), rows.zero_point.reshape(()), rows.qtype)
    return replace(rows, axis=axis % rank)


def usual_scale(scale: F32, alive: NDArray[np.bool_]) -> F32:
    """Give channels of zeros a usual scale: the median of the others, or 1 without others.

    Networks have such channels. Any scale represents them; but an arbitrarily small one would
    make the integer bias of the channel overflow, whose scale is a multiple of this one.
    """
    if alive.all():
        return scale
    others = np.sort(scale[alive])
    return np.where(alive, scale, others[others.size // 2] if others.size else np.float32(1))


_REGISTRY = Registry("weight quantizer", "ptq.weights", WeightQuantizer)


def weight_quantizers() -> dict[str, type[WeightQuantizer]]:
    """Return all weight quantizers by name, those of other distributions included."""
    return _REGISTRY.methods()


def weight_quantizer(name: str, **options: object) -> WeightQuantizer:
    """Return the weight quantizer of this name with these options.

    Raises:
        ConfigError: there is no such quantizer or option, or the value does not fit.
    """
    return _REGISTRY.make(name, options)


def parse_method(text: str) -> WeightQuantizer:
    """Return the weight quantizer that a text like ``percentile:coverage=99.9`` describes.

    Raises:
        ConfigError: as `weight_quantizer`, or the text is not of that form.
    """
    return _REGISTRY.parse(text)
