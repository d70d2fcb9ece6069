"""Find by what the channels that a gate lets through are divided, and which gates come first."""

from __future__ import annotations

import numpy as np

from ptq.data import Dataset
from ptq.graph.channel_taps import ChannelTap, tap_channels
from ptq.graph.rescale.apply import encode
from ptq.graph.rescale.gates import OPEN, Gated, find_gated
from ptq.graph.rescale.linear import Float64
from ptq.progress import Stages
from ptq.runtime.channels import ChannelExtremes, observe_channels
from ptq.source import Source

#: How far beyond the calibration data a channel may go below 0 before it is cut.
_MARGIN = 1.1

#: Factors are kept in steps of an eighth of an octave; half a step up, none comes out smaller.
_UP = 2.0 ** (1 / 16)

#: Of the largest factor, the smallest one: what is smaller still counts for nothing.
_LEAST = 2.0**-12


def gate_factors(source: Source, data: Dataset, stages: Stages, *, threads: int) -> dict[str, str]:
    """Return factors for each gate that can be computed apart, those that gain most first.

    The factor of a channel is its largest magnitude, as far as the gate is open: then all fill
    the same range. What a gate gains are the bits that its channels are short of the widest one,
    on the average.

    Args:
        source: the prepared model.
        data: the calibration data.
        stages: told of what takes time.
        threads: threads within an operator.

    Raises:
        CalibrationError: there is no sample, or a tensor is not finite.
    """
    found = find_gated(source.model)
    if not found:
        return {}
    taps = [ChannelTap(g.tensor, g.channels, 1, g.maker.rank) for g in found]
    tapped = tap_channels(source.model, taps)
    with stages.stage("gates", data.expected) as step:
        extremes = observe_channels(
            tapped, data, threads=threads, folder=source.folder, on_feed=step
        )
    scales = {gated.name: _scale(gated, extremes) for gated in found}
    order = sorted(scales, key=lambda name: -_bits(scales[name]))
    return {name: encode(scales[name] * _UP) for name in order}


def _scale(gated: Gated, extremes: dict[str, ChannelExtremes]) -> Float64:
    """Return the largest magnitude of each channel above -3, with a margin below 0."""
    seen = extremes[gated.tensor]
    below = np.minimum(_MARGIN * np.maximum(-seen.lo, 0.0), OPEN)
    sizes = np.maximum(seen.hi, below)
    largest = float(sizes.max(initial=0.0))
    return np.maximum(sizes, largest * _LEAST) if largest > 0 else np.ones(sizes.size)


def _bits(scale: Float64) -> float:
    """Return by how many bits channels fall short of the widest one, on the average."""
    return float(np.log2(scale.max() / scale).mean())
