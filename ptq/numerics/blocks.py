"""Weights in blocks, in which neighbours share a scale, and the packing of their codes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptq.errors import ConfigError
from ptq.numerics.affine import QParams, QTensor, qparams_from_range, quantize
from ptq.numerics.arrays import F32, F64, AnyArray, finite
from ptq.numerics.qtype import QType

#: By what factors the range of a block is shrunk in search of the least squared error, by bits.
#: Finer or wider grids gain less than 0.1 dB on the weights of transformers; with 8 bits no
#: factor below 1 gains anything.
_SHRINKS = {4: np.linspace(0.7, 1.0, 6), 3: np.linspace(0.5, 1.0, 9), 2: np.linspace(0.3, 1.0, 15)}

#: Weights worked on together, so that intermediate results stay in the cache.
CHUNK = 1 << 17


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """How a weight is cut into blocks, and the grid of its codes.

    Attributes:
        qtype: the grid.
        axis: the axis along which neighbours share a scale.
        block_size: how many do; the last block of a row may be shorter.
        symmetric: whether the zero point is the middle of the grid. All codes are used.
    """

    qtype: QType
    axis: int
    block_size: int
    symmetric: bool

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ConfigError(f"a block of {self.block_size} weights is none; use 16 or more")

    def counted(self, length: int) -> int:
        """Return how many blocks so many weights make."""
        return -(-length // self.block_size)


def quantize_blocks(w: AnyArray, layout: BlockFormat) -> QTensor:
    """Return the codes of a weight, rounded to nearest.

    With fewer than 8 bits, every block takes the range, among a few that are shrunk by a common
    factor, of which the squared error is least; never more than that of the full range. A block
    of zeros has scale 1.

    Args:
        w: a float weight of any shape.
        layout: the blocks and the grid.

    Raises:
        CalibrationError: a weight is NaN or infinite.
    """
    weight = finite(w)
    axis = layout.axis % weight.ndim
    rows = np.moveaxis(weight, axis, -1)
    count, size = layout.counted(rows.shape[-1]), layout.block_size
    # zeros fill up the last block: they are in every range, and are rounded without error
    blocks = filled_blocks(rows, size).reshape(-1, size)
    chunk = max(1, CHUNK // size)
    parts = [_best(blocks[i : i + chunk], layout) for i in range(0, len(blocks), chunk)]
    shape = (*rows.shape[:-1], count)

    def arranged(arrays: list[AnyArray], dtype: np.dtype[np.generic]) -> AnyArray:
        flat = np.concatenate(arrays) if arrays else np.empty(0, dtype)
        return np.ascontiguousarray(np.moveaxis(flat.reshape(shape), -1, axis))

    scale = arranged([p.scale for p in parts], np.dtype(np.float32))
    zero_point = arranged([p.zero_point for p in parts], layout.qtype.storage)
    params = QParams(scale, zero_point, layout.qtype, axis, size)
    return QTensor(quantize(weight, params), params)


def filled_blocks(rows: AnyArray, size: int) -> AnyArray:
    """Return the blocks along the last axis, ``(..., blocks, size)``; zeros fill up the last."""
    length = rows.shape[-1]
    missing = [(0, 0)] * (rows.ndim - 1) + [(0, -length % size)]
    return np.pad(rows, missing).reshape(*rows.shape[:-1], -(-length // size), size)


def _best(blocks: F32, layout: BlockFormat) -> QParams:
    """Return the parameters of the rows of a matrix, each one a block."""
    lo = blocks.min(axis=1, initial=0.0).astype(np.float64)
    hi = blocks.max(axis=1, initial=0.0).astype(np.float64)
    best = _params(lo, hi, layout)
    shrinks = _SHRINKS.get(layout.qtype.bits)
    if shrinks is None:
        return best
    least = _errors(blocks, best)
    for shrink in shrinks[-2::-1]:
        tried = _params(shrink * lo, shrink * hi, layout)
        errors = _errors(blocks, tried)
        better = errors < least
        least = np.where(better, errors, least)
        scale = np.where(better, tried.scale, best.scale)
        best = replace(
            best, scale=scale, zero_point=np.where(better, tried.zero_point, best.zero_point)
        )
    return best


def _params(lo: F64, hi: F64, layout: BlockFormat) -> QParams:
    qtype = layout.qtype
    if not layout.symmetric:
        return qparams_from_range(lo, hi, qtype, symmetric=False, axis=0)
    # unlike the grid of a kernel with 8-bit products, this one may use its lowest code
    above = max(qtype.qmax - qtype.middle, 1)
    step = np.maximum(hi / above, -lo / max(qtype.middle - qtype.qmin, 1))
    return qparams_from_range(-step * above, step * above, qtype, symmetric=True, axis=0)


def _errors(blocks: F32, params: QParams) -> F64:
    """Return the squared error of each block."""
    offset = params.zero_point.astype(np.float32)[:, None]
    scale = params.scale[:, None]
    steps = blocks / scale
    codes = np.rint(steps)
    np.clip(codes, params.qtype.qmin - offset, params.qtype.qmax - offset, out=codes)
    steps -= codes
    # In steps, for squares of values far from 1 could leave float32.
    total = np.einsum("ij,ij->i", steps, steps).astype(np.float64)
    return np.asarray(total * params.scale.astype(np.float64) ** 2)


def pack(codes: AnyArray, bits: int) -> AnyArray:
    """Return unsigned codes packed into bytes along the last axis, the first code lowest.

    Args:
        codes: uint8, each below ``2^bits``; the last byte of a row is filled up with zeros.
        bits: 1, 2, 4 or 8.
    """
    each = 8 // bits
    filled = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % each)]
    groups = np.pad(codes, filled).reshape(*codes.shape[:-1], -1, each)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(groups << shifts, axis=-1), np.uint8)


def unpack(packed: AnyArray, bits: int, count: int) -> AnyArray:
    """Return the first ``count`` codes of every row that `pack` packed."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(codes.reshape(*packed.shape[:-1], -1)[..., :count])
