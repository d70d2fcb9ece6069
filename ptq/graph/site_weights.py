"""The codes of a site's weight: what the quantizer gives, changed where the kernel needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ptq.errors import CalibrationError, PtqError
from ptq.graph.site import Site
from ptq.numerics.affine import QParams, QTensor, quantize
from ptq.numerics.levels import at_scale, within
from ptq.numerics.pairs import PAIR_LIMIT, fit_pairs, orders_of

#: Largest bias code. The accumulator adds up to 2^30 more before it would overflow int32.
BIAS_LIMIT = 1 << 30

#: How one weight is quantized: its reader, values, output-channel axis, symmetric or not.
QuantizeWeight = Callable[[str, np.ndarray, int, bool], QTensor]


@dataclass(frozen=True, slots=True, eq=False)
class SiteWeight:
    """A quantized weight.

    Attributes:
        tensor: codes, scale and zero point.
        widened: whether a scale was enlarged, because the bias would not have fitted int32.
    """

    tensor: QTensor
    widened: bool = False


def quantize_site_weight(
    site: Site,
    array: np.ndarray,
    bias: np.ndarray | None,
    input_scale: np.float32,
    quantize_weight: QuantizeWeight,
    *,
    symmetric: bool,
) -> SiteWeight:
    """Return the weight of a linear site in codes.

    Args:
        site: the linear operator.
        array: its weight.
        bias: its bias.
        input_scale: the step of its activation; with that of the weight it is that of the bias.
        quantize_weight: the quantizer.
        symmetric: whether zero points are to be 0.

    Raises:
        CalibrationError: a weight is not finite.
    """
    axis = site.weight_axis
    try:
        if axis is None:
            tensor = _of_one_channel(quantize_weight(site.name, array[np.newaxis], 0, symmetric))
        else:
            tensor = quantize_weight(site.name, array, axis, symmetric)
    except PtqError as error:
        assert site.weight is not None
        raise CalibrationError(f"weight '{site.weight.name}' of '{site.name}': {error}") from error
    widened = bias is not None and not bias_fits(bias, input_scale, tensor)
    if bias is not None and widened:
        tensor = _widened(array, bias, input_scale, tensor)
    return SiteWeight(unsaturated(site, array, tensor), widened)


def rounded_alike(
    tensor: QTensor, rounded: QTensor | None, bias: np.ndarray | None, input_scale: np.float32
) -> QTensor:
    """Return a weight as it was found before, where its scales still do for the bias.

    Args:
        tensor: the weight.
        rounded: the same in other codes, and maybe with other scales; larger ones may have become
            necessary since.
        bias: of the site, or ``None``.
        input_scale: the step of its activation.
    """
    if rounded is None:
        return tensor
    new, old = tensor.qparams, rounded.qparams
    if (new.qtype, new.axis) != (old.qtype, old.axis) or tensor.bits != rounded.bits:
        return tensor
    fits = new.zero_point == old.zero_point
    if bias is not None:
        fits &= _bias_fits(bias.reshape(-1), input_scale, old.scale)
    scale = np.where(fits, old.scale, new.scale)
    rows = fits[..., None]
    if new.axis is not None:
        spread = [1] * tensor.codes.ndim
        spread[new.axis] = -1
        fits = fits.reshape(spread)
    levels = None
    if tensor.levels is not None and rounded.levels is not None:
        levels = np.where(rows, rounded.levels, tensor.levels)
    codes = np.where(fits, rounded.codes, tensor.codes)
    return QTensor(codes, replace(new, scale=scale), levels, tensor.free)


def _of_one_channel(tensor: QTensor) -> QTensor:
    """Return a weight with one scale, quantized as the only channel of another."""
    params = tensor.qparams
    if params.axis is not None:
        params = QParams(params.scale.reshape(()), params.zero_point.reshape(()), params.qtype)
    levels = None if tensor.levels is None else tensor.levels.reshape(tensor.levels.shape[-1])
    return QTensor(tensor.codes[0], params, levels, tensor.free)


def may_saturate(site: Site, array: np.ndarray) -> bool:
    """Return whether a kernel of the site saturates with some codes.

    Only the kernel for one output channel a group in two dimensions is exact with all of them.
    """
    exact = site.depthwise and array.ndim == 4 and len(array) == site.node.attributes["group"].value
    return site.rule.saturates and not exact


def unsaturated(site: Site, array: np.ndarray, tensor: QTensor) -> QTensor:
    """Return the weight with codes of which no kernel of the site saturates."""
    if not may_saturate(site, array):
        return tensor
    if tensor.levels is not None:
        return within(tensor, PAIR_LIMIT // 2)
    convolution = site.node.op_type == "Conv"
    if site.weight_axis is not None:
        orders = orders_of(array.ndim, site.weight_axis, convolution=convolution)
        return fit_pairs(array, tensor, orders)
    # a batch of matrices: all of their columns count alike
    columns = np.swapaxes(array, -1, -2)
    flat = QTensor(np.swapaxes(tensor.codes, -1, -2).reshape(-1, array.shape[-2]), tensor.qparams)
    fitted = fit_pairs(columns.reshape(flat.codes.shape), flat, orders_of(2, 0, convolution=False))
    codes = np.swapaxes(fitted.codes.reshape(columns.shape), -1, -2)
    return QTensor(codes, fitted.qparams)


def bias_fits(bias: np.ndarray | None, input_scale: np.float32, weight: QTensor) -> bool:
    """Return whether the codes of a bias at this scale fit int32, with room for the sum."""
    if bias is None:
        return True
    return bool(np.all(_bias_fits(bias.reshape(-1), input_scale, weight.qparams.scale)))


def _bias_fits(bias: np.ndarray, input_scale: np.float32, scale: np.ndarray) -> np.ndarray:
    """Return where it does; scales of a weight are one for each channel, or one for all."""
    fits = np.abs(bias) <= input_scale.astype(np.float64) * scale * BIAS_LIMIT
    return fits if scale.ndim else np.asarray(fits.all())


def _widened(
    weight: np.ndarray, bias: np.ndarray, input_scale: np.float32, tensor: QTensor
) -> QTensor:
    """Quantize the weight again, at scales with which the bias fits (ALGORITHMS trap T4).

    It happens to channels whose weights are all but zero: the coarser step costs them nothing.
    """
    params = tensor.qparams
    needed = np.abs(bias.reshape(-1)) / (np.float64(input_scale) * BIAS_LIMIT)
    floor = needed if params.axis is not None else needed.max()
    scale = np.maximum(params.scale, np.nextafter(floor.astype(np.float32), np.float32(np.inf)))
    if tensor.levels is not None:
        return at_scale(tensor, scale)
    wider = QParams(scale, params.zero_point, params.qtype, params.axis, params.block_size)
    return QTensor(quantize(weight, wider), wider)
