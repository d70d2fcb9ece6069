"""The vectors that a convolution multiplies by its weight, as rows of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, prod

import numpy as np

from ptq.numerics.arrays import F32, AnyArray


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution walks over an image of any number of dimensions.

    Attributes:
        kernel: extents of the kernel.
        strides: one for each dimension.
        dilations: likewise.
        pads: zeros before each dimension, then behind each.
        auto_pad: ``NOTSET``, or how pads follow from the image: ``VALID``, ``SAME_UPPER``,
            ``SAME_LOWER``.
        groups: into how many groups the channels fall.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"
    groups: int = 1


def patches(x: AnyArray, window: Window, most: int) -> F32:
    """Return the inputs of the outputs of a convolution, or of an even sample of them.

    Args:
        x: what the convolution reads, shape ``(batch, channels, ...)``.
        window: how it walks.
        most: about how many outputs to take.

    Returns:
        Shape ``(groups, outputs, channels of a group * kernel)``; the last axis is ordered as the
        weight is.
    """
    pads = _pads(x.shape[2:], window)
    rank = len(window.kernel)
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(x, around)
    spans = [d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
    sizes = [
        max(0, (n - span) // s + 1)
        for n, span, s in zip(padded.shape[2:], spans, window.strides, strict=True)
    ]
    where = _evenly((len(x), *sizes), most)
    starts = [w * s for w, s in zip(where[1:], window.strides, strict=True)]
    # channels last, so that places come before them
    padded = np.moveaxis(padded, 1, -1)
    columns = [
        padded[(where[0], *(a + o for a, o in zip(starts, offset, strict=True)))]
        for offset in product(
            *(range(0, k * d, d) for k, d in zip(window.kernel, window.dilations, strict=True))
        )
    ]
    stacked = np.stack(columns, axis=-1).astype(np.float32)
    rows = stacked.reshape(len(where[0]), window.groups, -1)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


def rows_of(x: AnyArray, most: int) -> F32:
    """Return the rows of a matrix, or of a batch of them, or an even sample: one group."""
    rows = x.reshape(-1, x.shape[-1])
    (where,) = _evenly((len(rows),), most)
    return np.ascontiguousarray(rows[where].astype(np.float32))[None]


def _evenly(shape: tuple[int, ...], most: int) -> tuple[AnyArray, ...]:
    """Return the places of up to ``most`` elements, evenly spaced."""
    size = prod(shape)
    count = min(size, most)
    return np.unravel_index(np.arange(count) * size // max(count, 1), shape)


def _pads(image: tuple[int, ...], window: Window) -> tuple[int, ...]:
    if window.auto_pad in ("NOTSET", ""):
        return window.pads
    if window.auto_pad == "VALID":
        return (0,) * (2 * len(image))
    before, after = [], []
    axes = zip(image, window.kernel, window.strides, window.dilations, strict=True)
    for size, kernel, stride, dilation in axes:
        missing = max(0, (ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
        less, more = missing // 2, missing - missing // 2
        upper = window.auto_pad == "SAME_UPPER"
        before.append(less if upper else more)
        after.append(more if upper else less)
    return (*before, *after)
