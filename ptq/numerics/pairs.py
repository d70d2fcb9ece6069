"""Weights of which no two neighbouring products overflow 16 bits.

Kernels for x86 CPUs without VNNI multiply codes u8 by s8 with the instruction vpmaddubsw, which
adds the products of two neighbouring inputs and saturates the sum to int16. The sum is exact for
every input if two neighbouring weight codes of one sign add up to at most 128.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptq.numerics.affine import QParams, QTensor, qparams_from_range, quantize
from ptq.numerics.arrays import F32, F64, AnyArray
from ptq.numerics.qtype import QType

#: Largest sum of two codes of one sign: 255 * 128 = 32640 fits int16, 255 * 129 does not.
PAIR_LIMIT = 128

#: The grid on which all pairs fit, whatever the codes: -64 - 64 = -128.
_SEVEN_BITS = QType(7, signed=True)

#: Steps tried between the scale at which no weight saturates and the one at which all pairs fit.
_STEPS = 16

#: How much the sum of a channel's errors counts beside the sum of their squares. Inputs of one
#: sign, as behind a Relu, turn it into an offset of the output: in theory it counts as much as the
#: square of their mean over their variance. Measured on seven networks: without it
#: EfficientNet-Lite0 loses 5 dB of SQNR, with it nothing; of six, five stay within 0.7 dB. Those
#: are the networks that it was chosen on (docs/targets.md).
_OFFSET_COST = 0.3

#: Weights worked on together, so that intermediate results stay in the cache.
_BLOCK = 1 << 17

#: A permutation of the axes of a weight: first its output channels, then the others in the order
#: in which a kernel walks through one channel.
Order = tuple[int, ...]


def fit_pairs(w: AnyArray, tensor: QTensor, orders: Sequence[Order]) -> QTensor:
    """Return the weight with codes whose neighbours fit, at the least error found.

    A channel in which all do keeps its codes. Of another, either the step grows, which costs all
    weights precision, or the few pairs that are too large shrink: the best of `_STEPS` mixtures is
    taken, and a step of twice the size, with which nothing has to shrink. That is the only larger
    step of a power-of-two scale, which stays one. With zero points, the codes that the kernel sees
    do not shrink with the weights: such a channel is requantized to 7 bits.

    The error of a channel is the sum of its squares, and `_OFFSET_COST` times the square of its
    sum: pairs that shrink all err toward zero.

    Args:
        w: the float weight.
        tensor: its codes, int8, with one scale or one for each channel.
        orders: the orders in which kernels may walk through a channel; see `orders_of`.
    """
    axis, params = orders[0][0], tensor.qparams
    pairs = [_pairs(tensor.codes.shape, order) for order in orders]
    codes = _as_rows(tensor.codes, axis)
    largest = _largest_sums(codes, pairs)
    crowded = largest > PAIR_LIMIT
    if not np.any(crowded):
        return tensor
    shared = params.axis is None
    if shared:
        # with one scale for all, every channel follows the worst
        crowded, largest = np.full_like(crowded, True), np.full_like(largest, largest.max())
    rows, largest = _as_rows(np.asarray(w, np.float32), axis)[crowded], largest[crowded]
    old = _of_channels(params, crowded)
    if np.any(old.zero_point):
        coarser = _seven_bits(old)
    else:
        growths = _growths(largest, old.scale)
        errors = _errors(rows, old, growths, pairs)
        if shared:
            errors = np.broadcast_to(errors.sum(axis=1, keepdims=True), errors.shape)
        growth = np.take_along_axis(growths, errors.argmin(axis=0)[None], axis=0)[0]
        coarser = _over(old, (old.scale * growth).astype(np.float32))
    codes = codes.copy()
    codes[crowded] = _shrunk(quantize(rows, coarser), pairs)
    return QTensor(_from_rows(codes, axis, tensor.codes.shape), _merged(params, coarser, crowded))


def fits(tensor: QTensor, orders: Sequence[Order]) -> bool:
    """Whether no pair of neighbouring codes can overflow, in any of the orders."""
    pairs = [_pairs(tensor.codes.shape, order) for order in orders]
    return bool(np.all(_largest_sums(_as_rows(tensor.codes, orders[0][0]), pairs) <= PAIR_LIMIT))


def orders_of(rank: int, axis: int, *, convolution: bool) -> tuple[Order, ...]:
    """Return the orders in which the kernels walk through a weight.

    A convolution runs with channels first or last, as onnxruntime sees fit; matrices are walked
    along their inner axis.

    Args:
        rank: of the weight.
        axis: its output-channel axis.
        convolution: whether it is ``(out, in, *kernel)``.
    """
    if not convolution:
        return ((axis, *(a for a in range(rank) if a != axis)),)
    return (tuple(range(rank)), (0, *range(2, rank), 1))


def partners(shape: tuple[int, ...], orders: Sequence[Order]) -> AnyArray:
    """Return which weight of a row is the neighbour of each, -1 for none.

    Args:
        shape: of the weight.
        orders: the orders in which kernels may walk through a channel.

    Returns:
        Shape ``(orders, weights of a row)``.
    """
    axis = orders[0][0]
    columns = int(np.prod([n for a, n in enumerate(shape) if a != axis], dtype=np.int64))
    found = np.full((len(orders), columns), -1)
    for row, order in zip(found, orders, strict=True):
        first, second = _pairs(shape, order).T
        row[first], row[second] = second, first
    return found


# -- channels as rows ------------------------------------------------------------------------------


def _as_rows(array: AnyArray, axis: int) -> AnyArray:
    """Return an array with a row for every channel."""
    front = np.moveaxis(array, axis, 0)
    return front.reshape(len(front), -1)


def _from_rows(rows: AnyArray, axis: int, shape: tuple[int, ...]) -> AnyArray:
    """Return the rows of all channels in the shape that they came from."""
    inner = (n for a, n in enumerate(shape) if a != axis)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(len(rows), *inner), 0, axis))


def _pairs(shape: tuple[int, ...], order: Order) -> AnyArray:
    """Return where in its row each pair of neighbours lies, shape ``(pairs, 2)``.

    A last weight without a neighbour is in no pair: it fits by itself.
    """
    inner = [a for a in range(len(shape)) if a != order[0]]
    sizes = [shape[a] for a in inner]
    places = np.arange(np.prod(sizes, dtype=np.int64)).reshape(sizes)
    walk = places.transpose([inner.index(a) for a in order[1:]]).ravel()
    return walk[: walk.size // 2 * 2].reshape(-1, 2)


def _of_channels(params: QParams, chosen: AnyArray) -> QParams:
    """Return the parameters of the chosen channels, one for each even if all share one."""
    scale, zero_point = (
        np.broadcast_to(p, chosen.shape) for p in (params.scale, params.zero_point)
    )
    return QParams(scale[chosen], zero_point[chosen], params.qtype, 0)


def _merged(params: QParams, found: QParams, chosen: AnyArray) -> QParams:
    """Return the parameters of all channels, with those of the chosen ones replaced."""
    if params.axis is None:
        return QParams(found.scale[0].reshape(()), found.zero_point[0].reshape(()), params.qtype)
    scale, zero_point = params.scale.copy(), params.zero_point.copy()
    scale[chosen], zero_point[chosen] = found.scale, found.zero_point
    return QParams(scale, zero_point, params.qtype, params.axis)


def _over(params: QParams, scale: F32) -> QParams:
    return QParams(scale, params.zero_point, params.qtype, params.axis)


# -- pairs -----------------------------------------------------------------------------------------


def _pair_sums(codes: AnyArray, pairs: AnyArray) -> AnyArray:
    """Return what the codes of each pair add up to, as a magnitude.

    Codes of opposite signs never add up to more than `PAIR_LIMIT`, so that they need no care.
    """
    wide = np.result_type(codes, np.int16)
    return np.asarray(np.abs(codes[:, pairs[:, 0]].astype(wide) + codes[:, pairs[:, 1]]))


def _largest_sums(codes: AnyArray, pairs: Sequence[AnyArray]) -> AnyArray:
    """Return the largest sum of a pair in each row."""
    sums = [_pair_sums(codes, p).max(axis=1, initial=0) for p in pairs]
    return np.asarray(np.maximum.reduce(sums))


def _too_large(codes: AnyArray, pairs: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return the pairs that do not fit: their rows, and the columns of both codes."""
    rows, index = np.nonzero(_pair_sums(codes, pairs) > PAIR_LIMIT)
    return rows, pairs[index, 0], pairs[index, 1]


def _shrink(codes: AnyArray, too_large: tuple[AnyArray, AnyArray, AnyArray]) -> None:
    """Take what pairs have too much from both of their codes alike, in place."""
    rows, first, second = too_large
    a, b = codes[rows, first], codes[rows, second]
    over = np.maximum(np.abs(a + b) - PAIR_LIMIT, 0)
    codes[rows, first] = a - np.sign(a) * ((over + 1) // 2)
    codes[rows, second] = b - np.sign(b) * (over // 2)


def _shrunk(codes: AnyArray, pairs: Sequence[AnyArray]) -> AnyArray:
    """Return the codes with the pairs that do not fit taken toward zero.

    Magnitudes only fall, so that what fits in one order still does after the next.
    """
    wide = codes.astype(np.int16)
    for p in pairs:
        _shrink(wide, _too_large(wide, p))
    return wide.astype(codes.dtype)


# -- the search ------------------------------------------------------------------------------------


def _growths(largest: AnyArray, scale: F32) -> F32:
    """Return the factors by which to try larger scales, shape ``(tries, channels)``."""
    excess = largest / PAIR_LIMIT
    share = np.linspace(0.0, 1.0, _STEPS + 1)[:, None]
    power_of_two = np.frexp(scale)[0] == 0.5
    gradual = np.where(power_of_two, 1.0, 1.0 + share * (excess - 1.0))
    return np.unique(np.vstack([gradual, np.full_like(excess, 2.0)]), axis=0).astype(np.float32)


def _errors(rows: F32, params: QParams, growths: F32, pairs: Sequence[AnyArray]) -> F64:
    """Return the error of each row, in squares of its scale, at each growth of the scale.

    Args:
        rows: the weights.
        params: scale and grid of each row, without zero points.
        growths: the factors, shape ``(tries, rows)``.
        pairs: the pairs of every order.
    """
    errors = np.empty(growths.shape)
    steps = np.asarray(rows / params.scale[:, None], np.float32)
    height = max(1, _BLOCK // max(1, rows.shape[1]))
    for i in range(0, len(rows), height):
        block = slice(i, i + height)
        errors[:, block] = _block_errors(steps[block], params.qtype, growths[:, block], pairs)
    return errors


def _block_errors(steps: F32, qtype: QType, growths: F32, pairs: Sequence[AnyArray]) -> F64:
    errors = np.empty(growths.shape)
    # a larger scale makes no code larger, so that no other pairs will ever be too large
    codes = _rounded(steps, qtype)
    suspects = [_too_large(codes, p) for p in pairs]
    for i, growth in enumerate(growths):
        stretched = steps / growth[:, None]
        codes = _rounded(stretched, qtype)
        for suspect in suspects:
            _shrink(codes, suspect)
        codes -= stretched
        squares, offset = np.einsum("ij,ij->i", codes, codes), codes.sum(axis=1)
        errors[i] = (squares + _OFFSET_COST * offset**2) * growth**2
    return errors


def _rounded(steps: F32, qtype: QType) -> F32:
    return np.asarray(np.clip(np.rint(steps), qtype.qmin, qtype.qmax), np.float32)


def _seven_bits(params: QParams) -> QParams:
    """Return parameters that cover the same range with 7 bits."""
    lo, hi = params.range()
    return qparams_from_range(lo, hi, _SEVEN_BITS, symmetric=False, axis=params.axis)
