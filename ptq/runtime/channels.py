"""Observe the extremes of every channel of tensors; memory does not grow with the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptq.data.feeds import Feed
from ptq.errors import CalibrationError
from ptq.graph.channel_taps import ChannelModel
from ptq.runtime.session import open_session, run

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelExtremes:
    """The least and the greatest value of each channel of one tensor, shape ``(channels,)``."""

    lo: Float64
    hi: Float64

    @property
    def magnitudes(self) -> Float64:
        """The largest magnitude of each channel."""
        return np.maximum(np.abs(self.lo), np.abs(self.hi))


def observe_channels(
    tapped: ChannelModel,
    feeds: Iterable[Feed],
    *,
    threads: int,
    folder: Path,
    on_feed: Callable[[], None] = lambda: None,
) -> dict[str, ChannelExtremes]:
    """Run a model on every feed and return the extremes of channels, by tensor.

    Args:
        tapped: what to run.
        feeds: the calibration data.
        threads: threads within an operator; the result does not depend on them.
        folder: where the model's external data lies.
        on_feed: called after each feed.

    Raises:
        CalibrationError: there is no feed, or a tensor takes a value that is not finite.
        DataError: onnxruntime fails on a feed.
    """
    session = open_session(tapped.model, threads=threads, folder=folder)
    outputs = [name for pair in tapped.outputs for name in pair]
    lo = [np.full(tap.channels, np.inf) for tap in tapped.taps]
    hi = [np.full(tap.channels, -np.inf) for tap in tapped.taps]
    count = 0
    for count, feed in enumerate(feeds, start=1):
        found = run(session, feed, outputs, where="a calibration sample")
        for i, tap in enumerate(tapped.taps):
            least, most = found[2 * i], found[2 * i + 1]
            if not (np.isfinite(least).all() and np.isfinite(most).all()):
                raise CalibrationError(
                    f"tensor '{tap.tensor}' takes a NaN or infinite value in batch {count - 1}; "
                    "check preprocessing"
                )
            np.minimum(lo[i], least, out=lo[i])
            np.maximum(hi[i], most, out=hi[i])
        on_feed()
    if not count:
        raise CalibrationError("there is no calibration sample; give at least one")
    return {
        tap.tensor: ChannelExtremes(low, high)
        for tap, low, high in zip(tapped.taps, lo, hi, strict=True)
    }
