"""Weight range of least squared error of each channel."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.affine import qparams_from_range
from ptq.numerics.arrays import F32, F64
from ptq.numerics.clip_search import search_clip
from ptq.numerics.qtype import QType
from ptq.weights.base import RangeQuantizer
from ptq.weights.minmax import extremes
from ptq.weights.row_errors import BLOCK, row_errors

#: Smaller factors, for few bits and a far outlier.
_TAIL = np.geomspace(0.01, 0.2, 12, endpoint=False)


class MseQuantizer(RangeQuantizer, frozen=True, tag="mse"):
    """Least squared error of each channel, by shrinking its range; never worse than minmax.

    Both ends shrink by a common factor; on an asymmetric grid each end is then tried on its own.

    Attributes:
        steps: how many factors from 0.2 to 1 are tried, besides a few smaller ones, before refining
            around the best.
    """

    paper: ClassVar[str] = (
        "Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, "
        "ICCV workshops 2019"
    )
    good_for: ClassVar[str] = (
        "fewer than 8 bits, the default there, to nearest and in front of gptq"
    )

    steps: Annotated[int, Meta(ge=2, le=1000)] = 80

    def ranges(self, rows: F32, qtype: QType, *, symmetric: bool) -> tuple[F64, F64]:
        """Return the range of least error of each row; of about equals, the widest."""
        lo, hi = extremes(rows)
        shrinks = np.concatenate([_TAIL, np.linspace(0.2, 1.0, self.steps)])
        chunk = max(1, BLOCK // max(rows.shape[1], 1))
        for i in range(0, len(rows), chunk):
            part = slice(i, i + chunk)
            block = rows[part]

            def loss(lows: F64, highs: F64, block: F32 = block) -> F64:
                candidates = (
                    qparams_from_range(low, high, qtype, symmetric=symmetric, axis=0)
                    for low, high in zip(lows, highs, strict=True)
                )
                return np.stack([row_errors(block, params) for params in candidates])

            lo[part], hi[part] = search_clip(
                lo[part], hi[part], loss, shrinks, separately=not symmetric
            )
        return lo, hi
