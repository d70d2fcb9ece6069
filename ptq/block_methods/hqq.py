"""Half-quadratic quantization."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.block_methods.base import Affine, OffsetQuantizer, normal
from ptq.numerics.arrays import F32, F64, AnyArray


class HqqBlocks(OffsetQuantizer, frozen=True, tag="hqq"):
    """Move the zero point of each block, a real number, so that few large errors are left.

    The scale ``s`` is that of the range of the block. The zero point ``z`` makes the sum of
    ``|w - s (q - z)|^p`` small, by turns: ``q = clip(round(w / s + z))``; ``e = shrink(w - v)`` of
    ``v = s (q - z)``, with ``shrink(x) = sign(x) max(|x| - |x|^(p-1) / beta, 0)``;
    ``z = mean(q - (w - e) / s)``; ``beta`` grows by ``kappa``. It stops where the mean magnitude of
    ``w - v`` is no longer less. Rounding ``z`` to an integer would cost about 2 dB.

    Departs from the reference by stopping for each block by itself, not for a whole weight.
    """

    paper: ClassVar[str] = (
        "Badri and Shaji, Half-Quadratic Quantization of Large Machine Learning Models, Mobius "
        "Labs 2023, equations 2 to 6"
    )
    good_for: ClassVar[str] = (
        "4 bits without data: 1.2 to 1.4 dB over mse, in a larger file; kquant is "
        "smaller and mostly better"
    )
    widths: ClassVar[tuple[int, ...]] = (8, 6, 5, 4, 3, 2)
    p: Annotated[float, Meta(gt=0, le=1)] = 0.7
    beta: Annotated[float, Meta(gt=0)] = 10.0
    kappa: Annotated[float, Meta(ge=1)] = 1.01
    iterations: Annotated[int, Meta(ge=0)] = 20

    def solve(self, blocks: F32, counted: F32, bits: int) -> Affine:
        """Return codes, scales and offsets; see `OffsetQuantizer.solve`."""
        lo, hi = ends(blocks, counted)
        most = (1 << bits) - 1
        scale = normal((hi - lo) / most).astype(np.float64)
        # of a block of equal weights: the middle code everywhere, and its offset is the weight
        even = hi == lo
        middle = 1 << (bits - 1)
        zero = np.where(even, middle - lo / scale, -lo / scale)
        best, least = zero, np.full(len(blocks), np.inf)
        number = counted.sum(axis=1)
        beta, steps = self.beta, blocks / scale[:, None]
        for _ in range(self.iterations + 1):
            codes = np.clip(np.rint(steps + zero[:, None]), 0, most)
            lost = (steps - codes + zero[:, None]) * scale[:, None] * counted
            error = np.abs(lost).sum(axis=1) / number
            better = error < least
            if not better.any():
                break
            best, least = np.where(better, zero, best), np.where(better, error, least)
            kept = shrink(lost, beta, self.p) / scale[:, None]
            moved = ((codes - steps + kept) * counted).sum(axis=1) / number
            # a block that has stopped would only wander
            zero = np.where(better & ~even, moved, best)
            beta *= self.kappa
        codes = np.clip(np.rint(steps + best[:, None]), 0, most)
        return Affine(codes, scale, np.where(even, lo, scale * (middle - best)))


def shrink(x: AnyArray, beta: float, p: float) -> F64:
    """Return ``sign(x) max(|x| - |x|^(p-1) / beta, 0)``, 0 for 0."""
    size = np.abs(x)
    with np.errstate(divide="ignore"):
        found = np.maximum(size - size ** (p - 1) / beta, 0.0)
    return np.asarray(np.sign(x) * found)


def ends(blocks: F32, counted: F32) -> tuple[F64, F64]:
    """Return the least and the largest weight of each block."""
    there = counted > 0
    lo = np.where(there, blocks, np.inf).min(axis=1).astype(np.float64)
    hi = np.where(there, blocks, -np.inf).max(axis=1).astype(np.float64)
    return lo, hi
