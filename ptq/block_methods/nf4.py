"""NormalFloat of 4 bits."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np

from ptq.block_methods.base import LevelQuantizer, normal
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.levels import nearest_index
from ptq.numerics.qtype import INT8_NARROW

#: Where the outermost quantile is cut off, of the reference implementation.
_OFFSET = 0.9677083


class Nf4Blocks(LevelQuantizer, frozen=True, tag="nf4"):
    """Take the nearest of 16 quantiles of the normal distribution, times the largest weight.

    The levels are rounded to 127ths, so that kernels of 8 bits multiply them: an error of a 254th
    of the largest weight of a block, beside one of a 25th and more between levels.
    """

    paper: ClassVar[str] = (
        "Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, NeurIPS 2023, section 3"
    )
    good_for: ClassVar[str] = (
        "comparison with QLoRA: 0.3 dB below to 0.8 above mse of 4 bits; kquant is mostly better"
    )
    widths: ClassVar[tuple[int, ...]] = (4,)

    def table(self, bits: int) -> AnyArray:
        """Return the levels in 127ths; see `LevelQuantizer.table`."""
        del bits
        return np.rint(normal_float() * INT8_NARROW.qmax)

    def solve(self, blocks: F32, bits: int) -> tuple[AnyArray, AnyArray]:
        """Return levels and scales; see `LevelQuantizer.solve`."""
        scale = normal(np.abs(blocks).max(axis=1, initial=0.0) / INT8_NARROW.qmax)
        table = self.table(bits)
        return table[nearest_index(blocks / scale[:, None], table)], scale


@cache
def normal_float() -> F64:
    """Return the 16 levels, ascending from -1 to 1, with 0 among them.

    Eight quantiles above 0 and seven below it are evenly spaced in probability.
    """
    from scipy.special import ndtri

    above = ndtri(np.linspace(_OFFSET, 0.5, 9)[:-1])
    below = -ndtri(np.linspace(_OFFSET, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([below, [0.0], above]))
    return np.asarray(levels / np.abs(levels).max())
