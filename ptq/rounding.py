"""Round the weights of a network by its outputs, a few layers at a time, the first ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from ptq.data.feeds import Feed
from ptq.graph.layer_inputs import groups_of, rows_axis, tap_layer_inputs
from ptq.graph.passes.edit import constant, is_op
from ptq.graph.site import Site, Sites
from ptq.graph.site_weights import may_saturate
from ptq.graph.types import Model
from ptq.numerics.affine import QParams, QTensor
from ptq.numerics.arrays import F64, AnyArray
from ptq.numerics.gptq import Grid
from ptq.numerics.pairs import PAIR_LIMIT, orders_of, partners
from ptq.numerics.solutions import DAMPINGS, Solution
from ptq.rounders import Rounder, Task
from ptq.runtime.grams import grams
from ptq.stats.gram import Gram

#: How many times the network is run on the feeds, unless the sums would take too much memory.
_PASSES = 8

#: With fewer bits, other scales may be tried: more than the first of the `solutions`.
_FULL_BITS = 8

#: What is left of a power of two without its exponent.
_OF_POWERS = 0.5

#: Layers with more inputs for each output are left as they are: their sums alone would take more
#: than a third of a gigabyte. It is 3x3 over 512 channels.
_MOST_COLUMNS = 4608

#: About how many bytes the sums of the layers of one pass may take.
_MEMORY = 512 << 20


T = TypeVar("T")
K = TypeVar("K")

#: Sums of products of what a layer reads, from either half of the data.
Halves = tuple[Gram, Gram]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A weight as a stack of matrices, one for each group.

    Attributes:
        w: float64, shape ``(groups, rows, columns)``.
        nearest: the codes as they are, same shape.
        grid: what the codes can be.
    """

    w: F64
    nearest: F64
    grid: Grid


def round_weights(  # noqa: PLR0913 - what to round, how, and on what
    sites: Sites,
    emit: Callable[[Mapping[str, QTensor]], tuple[Model, Mapping[str, QTensor]]],
    method: Rounder,
    feeds: Sequence[Feed],
    folder: Path,
    *,
    threads: int = 1,
    on_feed: Callable[[], None] = lambda: None,
) -> dict[str, QTensor]:
    """Return the weights of layers in codes that keep the output of each, by name.

    What is kept is the product with the inputs as they are in the quantized network. To aim at the
    outputs of the float network instead (asymmetric calibration) is worse by far: layers of one
    pass, and those after it, make up for the same error again and again (measured with held-out
    choice of its strength: EfficientNet-Lite0 gets 12.3 dB by it, and 24.4 by this).

    Left out are weights of batches of matrices, and of layers with very many inputs.

    What the layers read is observed in the quantized network, with the weights of earlier passes
    rounded already. Zero points stay, and with 8 bits scales.

    Args:
        sites: of the float model.
        emit: returns the quantized model and its weights, given those that are rounded already.
        method: how they are rounded.
        feeds: the data.
        folder: where external data lies.
        threads: within an operator.
        on_feed: called after each feed of each of the `passes`.

    Raises:
        DataError: onnxruntime fails on a feed.
    """
    return layer_by_layer(
        sites, emit, partial(_rounded, method), feeds, folder, threads=threads, on_feed=on_feed
    )


def layer_by_layer(  # noqa: PLR0913 - what to solve, how, and on what
    sites: Sites,
    emit: Callable[[Mapping[str, T]], tuple[Model, Mapping[str, QTensor]]],
    solve: Callable[[Site, QTensor, Halves], T],
    feeds: Sequence[Feed],
    folder: Path,
    *,
    threads: int = 1,
    on_feed: Callable[[], None] = lambda: None,
) -> dict[str, T]:
    """Return what is solved for the weight of each layer, from what it reads in the network.

    Args:
        sites: of the float model.
        emit: returns the quantized model and its weights, given what is solved already.
        solve: given a layer, its weight as it is written, and the products of its inputs.
        feeds: the data.
        folder: where external data lies.
        threads: within an operator.
        on_feed: called after each feed of each of the `passes`.

    Raises:
        DataError: onnxruntime fails on a feed.
    """
    done: dict[str, T] = {}
    for part in _parts(sites):
        quantized, written = emit(done)
        tapped = tap_layer_inputs(quantized, part)
        sums = grams(tapped, feeds, folder, threads=threads, on_feed=on_feed)
        for site in part:
            assert site.weight is not None
            name = site.weight.name or ""
            if name in sums:
                done[name] = solve(site, written[name], sums.pop(name))
    return done


def round_at_widths(  # noqa: PLR0913 - a network, its weights at several widths, and data
    sites: Sites,
    quantized: Model,
    written: Mapping[K, Mapping[str, QTensor]],
    method: Rounder,
    feeds: Sequence[Feed],
    folder: Path,
    *,
    threads: int = 1,
    on_feed: Callable[[], None] = lambda: None,
) -> dict[K, dict[str, QTensor]]:
    """Return the weights of layers at several widths, each in codes that keep the layer's output.

    Unlike `round_weights`, all layers read what they do in one and the same network, so that its
    inputs are observed once for all widths: this is for comparing widths, not for shipping.

    Args:
        sites: of the float model.
        quantized: the network.
        written: by width or what else tells them apart, the weights as they are, by name.
        method: how they are rounded.
        feeds: the data.
        folder: where external data lies.
        threads: within an operator.
        on_feed: called after each feed of each of the `passes`.

    Raises:
        DataError: onnxruntime fails on a feed.
    """
    done: dict[K, dict[str, QTensor]] = {form: {} for form in written}
    for part in _parts(sites):
        tapped = tap_layer_inputs(quantized, part)
        sums = grams(tapped, feeds, folder, threads=threads, on_feed=on_feed)
        for site in part:
            assert site.weight is not None
            name = site.weight.name or ""
            found = sums.pop(name, None)
            for form, tensors in written.items():
                if found is not None:
                    done[form][name] = _rounded(method, site, tensors[name], found)
    return done


def passes(sites: Sites) -> int:
    """Return how many times `round_weights` runs the network on the feeds."""
    return sum(1 for _ in _parts(sites))


def _parts(sites: Sites) -> Iterator[list[Site]]:
    """Yield the layers that are rounded in one pass.

    Layers that share a weight are in one part, that of the first.
    """
    readers: dict[str, list[Site]] = {}
    for site in sites.sites:
        if site.weight is not None and site.rule.role == "linear":
            readers.setdefault(site.weight.name or "", []).append(site)
    readers = {weight: sharing for weight, sharing in readers.items() if _can_be_rounded(sharing)}
    least = -(-len(readers) // _PASSES)
    part: list[Site] = []
    count = size = 0
    for sharing in readers.values():
        needed = _gram_bytes(sharing[0])
        if part and (count >= least or size + needed > _MEMORY):
            yield part
            part, count, size = [], 0, 0
        part += sharing
        count, size = count + 1, size + needed
    if part:
        yield part


def _can_be_rounded(sharing: Sequence[Site]) -> bool:
    """Return whether a weight is one stack of matrices to all layers that it is of."""
    first = sharing[0]
    array = constant(first.weight)
    if array is None or not array.size or rows_axis(first) is None:
        return False
    seen_as = {(rows_axis(site), groups_of(site)) for site in sharing}
    return len(seen_as) == 1 and _columns(first) <= _MOST_COLUMNS


def _gram_bytes(site: Site) -> int:
    return 2 * 8 * groups_of(site) * _columns(site) ** 2


def _columns(site: Site) -> int:
    """Return how many inputs each output of a layer has."""
    array, axis = constant(site.weight), rows_axis(site)
    assert array is not None and axis is not None
    return int(array.size) // int(array.shape[axis])


def _rounded(method: Rounder, site: Site, written: QTensor, halves: Halves) -> QTensor:
    """Return a weight rounded with what does best on the other half of the data."""
    found = problem(site, written)
    w, grid = found.w, found.grid
    first, second = (gram.total for gram in halves)
    ways = None if written.bits < _FULL_BITS else 1
    block = _block(written.qparams, w.shape[2])
    free = written.free and block is not None
    nearest = Solution(found.nearest, grid)

    def solved(moments: F64, damping: float) -> Iterator[Solution]:
        return islice(method.solutions(Task(w, nearest, moments, damping, block, free)), ways)

    held_out = {
        (damping, way): float(solution.errors(w, second).sum())
        for damping in DAMPINGS
        for way, solution in enumerate(solved(first, damping))
    }
    damping, way = min(held_out, key=lambda t: held_out[t])
    whole = first + second
    best = next(islice(solved(whole, damping), way, None))
    better = (best.errors(w, whole) < nearest.errors(w, whole))[:, :, None]
    codes = np.where(better, best.codes, nearest.codes)
    scale = np.where(better, best.grid.scale, grid.scale)[:, :, 0]
    axis = rows_axis(site)
    assert axis is not None
    written_codes = _as_written(codes, written.codes, axis)
    levels = written.levels
    if free and levels is not None and best.grid.levels is not None and grid.levels is not None:
        found_levels = np.where(better, best.grid.levels, grid.levels)
        levels = found_levels.reshape(levels.shape).astype(levels.dtype)
    params = _with_scale(written.qparams, scale)
    return QTensor(written_codes, params, levels, written.free)


def _block(params: QParams, columns: int) -> int | None:
    """Return how many columns of a row share a scale that may change: all, or ``None``.

    It may not where rows share it, and where it is a power of two.
    """
    powers = np.all(np.frexp(params.scale)[0] == _OF_POWERS)
    return None if params.axis is None or powers else columns


def _with_scale(params: QParams, scale: F64) -> QParams:
    """Return parameters with other scales of rows, shape ``(groups, rows)``."""
    if params.axis is None:
        return params
    return replace(params, scale=scale.reshape(-1).astype(np.float32))


def problem(site: Site, written: QTensor) -> Problem:
    """Return the weight of a layer and its codes as matrices."""
    array, axis = constant(site.weight), rows_axis(site)
    assert array is not None and axis is not None
    params, groups = written.qparams, groups_of(site)
    rows = _rows(array, axis).astype(np.float64)
    scale, zero_point = (
        np.broadcast_to(p, len(rows)).astype(np.float64).reshape(groups, -1, 1)
        for p in (params.scale, params.zero_point)
    )
    bound = np.empty((0, rows.shape[1]), np.int64)
    if may_saturate(site, array):
        orders = orders_of(array.ndim, axis, convolution=is_op(site.node, "Conv"))
        bound = partners(array.shape, orders)
    qtype = params.qtype
    levels = None
    if written.levels is not None:
        count = written.levels.shape[-1]
        levels = np.broadcast_to(written.levels, (len(rows), count)).astype(np.float64)
        levels = levels.reshape(groups, -1, count)
    grid = Grid(scale, zero_point, qtype.qmin, qtype.qmax, bound, PAIR_LIMIT, levels)
    nearest = _rows(written.codes, axis).astype(np.float64)
    shape = (groups, -1, rows.shape[1])
    return Problem(rows.reshape(shape), nearest.reshape(shape), grid)


def _rows(array: AnyArray, axis: int) -> AnyArray:
    front = np.moveaxis(array, axis, 0)
    return front.reshape(len(front), -1)


def _as_written(codes: F64, old: AnyArray, axis: int) -> AnyArray:
    inner = [n for a, n in enumerate(old.shape) if a != axis]
    rows = codes.reshape(old.shape[axis], *inner)
    return np.ascontiguousarray(np.moveaxis(rows, 0, axis)).astype(old.dtype)
