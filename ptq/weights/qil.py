"""QIL's quantizer of weights: an interval of magnitudes that is quantized, searched."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.qtype import QType
from ptq.numerics.sorted_rows import count_below, running_sums
from ptq.weights.codebook import Codebook, CodebookQuantizer
from ptq.weights.gain import least_squares_gain
from ptq.weights.mse import MseQuantizer

#: Where the interval may begin, as shares of the largest magnitude, and how much of what is left
#: above it may have. Little of it serves few bits and a far outlier.
_BEGINS = np.linspace(0.0, 0.5, 4)
_LENGTHS = np.concatenate([np.geomspace(0.02, 0.2, 4, endpoint=False), np.linspace(0.2, 1.0, 9)])
_LEAST = _LENGTHS[0] / 4

#: Around the best, a grid of so many points to either side, each time half as wide.
_AROUND = np.linspace(-1.0, 1.0, 3)
_REFINEMENTS = 4

#: Thresholds that are looked up together: a few arrays of 8 MB.
_AT_ONCE = 1 << 20


class QilQuantizer(CodebookQuantizer, frozen=True, tag="qil"):
    """An interval of magnitudes for each channel: below it 0, above it the largest code.

    With center ``c`` and half the length ``d``, ``t = clip((|w| - (c - d)) / 2d, 0, 1)``, and
    ``sign(w) round(t^gamma (2^(b-1) - 1))`` are codes (equations 2 and 5). The paper trains the
    interval by the loss of the network. Here it is the one with which the squared error is least,
    the value of a code being the gain in closed form: a grid of intervals, then finer ones around
    the best. The clipping range of `mse` is among them, so that it is never worse.

    At ``gamma = 1``, nearest codes are best for the squared error whatever the gain is: that
    interval begins at 0 up to what the grid can tell, and QIL is `mse` with a gain. What the paper
    gains by pruning and clipping comes from training.

    Attributes:
        gamma: the exponent; below 1, more weights have large codes.
    """

    paper: ClassVar[str] = (
        "Jung et al., Learning to Quantize Deep Networks by Optimizing Quantization Intervals with "
        "Task Loss, CVPR 2019, section 3.2"
    )
    good_for: ClassVar[str] = "symmetric weights: `mse` and at most 0.1 dB; a start for training"
    least_bits: ClassVar[int] = 2

    gamma: Annotated[float, Meta(gt=0, le=10)] = 1.0

    def codebook(self, rows: F32, bits: int) -> Codebook:
        """Return the levels of each row, and which of them each weight has."""
        top = 2 ** (bits - 1) - 1
        qtype = QType(bits, signed=True, narrow=True)
        bound = np.max(np.abs(MseQuantizer().ranges(rows, qtype, symmetric=True)), axis=0)
        codes = np.zeros(rows.shape, np.intp)
        steps = ((np.arange(top) + 0.5) / top) ** (1 / self.gamma)
        chunk = max(1, _AT_ONCE // max(rows.shape[1], top * _BEGINS.size * _LENGTHS.size))
        for start in range(0, len(rows) if rows.size else 0, chunk):
            part = slice(start, start + chunk)
            begin, end = _intervals(rows[part], bound[part], steps)
            codes[part] = interval_codes(rows[part], begin, end, top, self.gamma)
        scale = least_squares_gain(rows, codes)
        return Codebook(np.arange(-top, top + 1) * scale[:, None], codes + top, scale)


def _intervals(rows: F32, bound: F64, steps: F64) -> tuple[F64, F64]:
    """Return where the best interval of each row begins and ends, shape ``(rows, 1)``.

    Args:
        rows: the weight.
        bound: where `mse` clips each row.
        steps: where codes change, as shares of an interval.
    """
    sizes = np.sort(np.abs(rows), axis=1).astype(np.float64)
    alive = sizes[:, -1:] > 0
    most = np.where(alive, sizes[:, -1:], 1.0)
    bound = np.where(alive[:, 0], bound, 1.0)
    grid = np.array([(begin, length) for begin in _BEGINS for length in _LENGTHS])
    clipped = np.stack([np.zeros(len(rows)), bound / most[:, 0]], axis=1)
    tried = np.concatenate([clipped[:, None], np.broadcast_to(grid, (len(rows), *grid.shape))], 1)
    width = np.array([_BEGINS[1], _LENGTHS[-1] - _LENGTHS[-2]])
    around = np.array([(begin, length) for begin in _AROUND for length in _AROUND])
    for _ in range(1 + _REFINEMENTS):
        scores = _scores(sizes, _ends(tried) * most[:, :, None], steps)
        # of equals the first: the best one so far
        best = np.take_along_axis(tried, scores.argmax(axis=1)[:, None, None], axis=1)
        near = np.clip(best + width * around, [0.0, _LEAST], [_BEGINS[-1], 1.0])
        tried = np.concatenate([best, near], axis=1)
        width = width / 2
    ends = _ends(best)[:, 0] * most
    return ends[:, :1], ends[:, 1:]


def interval_codes(
    w: AnyArray, begin: F64 | float, end: F64 | float, top: int, gamma: float
) -> AnyArray:
    """Return the codes of weights of which magnitudes from ``begin`` to ``end`` are quantized.

    Args:
        w: weights.
        begin: ``c - d``, at which the code is 0.
        end: ``c + d``, at which it is ``top``.
        top: the largest code.
        gamma: the exponent.
    """
    part = np.clip((np.abs(w) - begin) / (end - begin), 0.0, 1.0)
    return (np.sign(w) * np.rint(part**gamma * top)).astype(np.intp)


def _ends(intervals: F64) -> F64:
    """Return begin and end of intervals that are given by begin and share of what is left."""
    begin, share = intervals[..., 0], intervals[..., 1]
    return np.stack([begin, begin + share * (1.0 - begin)], axis=-1)


def _scores(sizes: F64, ends: F64, steps: F64) -> F64:
    """Return what the codes of each interval take from the squared error: ``<w, q>^2 / <q, q>``.

    A magnitude has the code ``j`` or more if it is above the j-th threshold. So both products are
    sums over thresholds, of the magnitudes above each and of how many there are.

    Args:
        sizes: magnitudes, ascending, shape ``(rows, weights)``.
        ends: of each interval, shape ``(rows, intervals, 2)``.
        steps: where codes change, as shares of the interval.
    """
    begin, end = ends[..., :1], ends[..., 1:]
    at = (begin + (end - begin) * steps).reshape(len(sizes), -1)
    first = count_below(sizes, at)
    sums = running_sums(sizes)
    shape = (*ends.shape[:2], len(steps))
    above = (sums[:, -1:] - np.take_along_axis(sums, first, axis=1)).reshape(shape)
    counts = (sizes.shape[1] - first).reshape(shape)
    of_one = counts @ (2.0 * np.arange(len(steps)) + 1.0)
    return np.asarray(above.sum(axis=2) ** 2 / np.maximum(of_one, 1.0))
