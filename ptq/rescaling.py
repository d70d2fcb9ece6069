"""Rescale channels before a model is quantized, so that one scale suits all that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ptq.data import Dataset
from ptq.graph.channel_taps import ChannelTap, tap_channels
from ptq.graph.rescale.apply import decode, encode
from ptq.graph.rescale.groups import Group, find_groups
from ptq.graph.rescale.record import Rescaling
from ptq.graph.types import Model
from ptq.numerics.equalize import Tied, equalize
from ptq.numerics.marginal import Normal
from ptq.progress import Stages
from ptq.runtime.channels import observe_channels
from ptq.source import Source

Float64 = npt.NDArray[np.float64]

#: How far beyond the calibration data a channel may go before a Clip that did not act on it acts.
_MARGIN = 1.1

#: A factor that never binds: those that can be kept end at 2^-15.
_FREE = 2.0**-20


def equalizing_factors(
    source: Source,
    data: Dataset,
    stages: Stages,
    *,
    threads: int,
    tops: Mapping[str, Float64] | None = None,
) -> dict[str, Float64]:
    """Return the factors of cross-layer equalization, by the name of each group of tensors.

    Relu6 lets a factor through where its bound is not reached. Channels that come within 10 % of it
    on the data stay as they are, and on the others it binds nowhere before it did: the function is
    the same on that data.

    Args:
        source: the prepared model.
        data: the calibration data.
        stages: told of what takes time.
        threads: threads within an operator.
        tops: the largest value of each channel of tensors of which it is known without the data.

    Raises:
        CalibrationError: there is no sample, or a tensor is not finite.
    """
    groups = find_groups(source.model)
    tops = {**_tops(source, groups, data, stages, threads), **(tops or {})}
    # a linear operator is the same to the group behind it and to that in front
    linears = {e.node: e for g in groups for e in (*g.makers, *g.readers)}
    place = {node: index for index, node in enumerate(linears)}
    tied = [
        Tied(
            tuple(place[e.node] for e in group.makers),
            tuple(place[e.node] for e in group.readers),
            _least(group, tops),
        )
        for group in groups
    ]
    found = equalize([e.magnitudes() for e in linears.values()], tied)
    return {group.name: factors for group, factors in zip(groups, found, strict=True)}


def at_strength(factors: Mapping[str, Float64], strength: float) -> Rescaling:
    """Return factors to be applied: to the power of the strength, and without those that are 1."""
    kept = {name: encode(f**strength) for name, f in factors.items()}
    return Rescaling(equalized={n: t for n, t in kept.items() if (decode(t) != 1).any()})


def _tops(
    source: Source, groups: Sequence[Group], data: Dataset, stages: Stages, threads: int
) -> dict[str, Float64]:
    """Return the largest value of each channel of what Clips bound."""
    taps = [
        ChannelTap(tensor, group.channels, group.axis, group.makers[0].rank)
        for group in groups
        for tensor in group.limits
    ]
    if not taps:
        return {}
    tapped = tap_channels(source.model, taps)
    with stages.stage("equalize", data.expected) as step:
        found = observe_channels(tapped, data, threads=threads, folder=source.folder, on_feed=step)
    return {tensor: extremes.hi for tensor, extremes in found.items()}


def divided_normals(
    model: Model, normals: Mapping[str, Normal], rescaling: Rescaling
) -> dict[str, Normal]:
    """Return what is known of channels beforehand, once they are equalized.

    Args:
        model: the prepared model, before anything was rescaled.
        normals: what is known of it.
        rescaling: by what the channels are divided.
    """
    factors = {
        value.name: decode(rescaling.equalized[group.name])
        for group in find_groups(model)
        if group.name in rescaling.equalized
        for value in group.tensors
    }
    return {n: k.divided(factors[n]) if n in factors else k for n, k in normals.items()}


def _least(group: Group, tops: Mapping[str, Float64]) -> Float64:
    """Return the least factor of each channel with which no Clip binds where it did not."""
    least = np.full(group.channels, _FREE)
    for tensor, bound in group.limits.items():
        np.maximum(least, _MARGIN * tops[tensor] / bound, out=least)
    capped: Float64 = np.minimum(least, 1.0)
    return capped
