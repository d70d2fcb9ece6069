"""Match the channels of layer norms in the quantized network with those of the float one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptq.data.feeds import Feed
from ptq.errors import CalibrationError
from ptq.graph.channel_taps import with_outputs
from ptq.graph.norms import NormTweak, find_norms, output_of
from ptq.graph.types import Model
from ptq.numerics.arrays import F64
from ptq.runtime.session import open_session, run

#: A channel that is squeezed or stretched by more than this is not noisy, but clipped or dead.
_MOST = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean and standard deviation of each channel, ``(channels,)``."""

    mean: F64
    std: F64

    def towards(self, wanted: Moments) -> NormTweak:
        """Return what gives these channels the wanted mean and deviation.

        Reference: Li et al., "Norm Tweaking: High-Performance Low-Bit Quantization of Large
        Language Models", AAAI 2024, equation 3, whose loss is the distance of means and variances
        of channels. Departs from it by going there at once, without gradients.
        """
        known = (self.std > 0) & (wanted.std > 0)
        ratio = np.divide(wanted.std, self.std, out=np.ones_like(self.std), where=known)
        factor = np.clip(ratio, 1 / _MOST, _MOST)
        return NormTweak(factor, wanted.mean - factor * self.mean)


def norm_tweaks(
    float_model: Model,
    emit: Callable[[Mapping[str, NormTweak]], Model],
    feeds: Sequence[Feed],
    folder: Path,
    *,
    threads: int = 1,
    on_feed: Callable[[], None] = lambda: None,
) -> dict[str, NormTweak]:
    """Return the tweak of each norm, by its name: each sees what those before it have mended.

    One pass over the feeds for the float model, and one for each norm.

    Args:
        float_model: the float model.
        emit: quantizes it, with these tweaks.
        feeds: the data; one sample is in memory at a time.
        folder: where external data lies.
        threads: within an operator.
        on_feed: called after each feed of each pass.

    Raises:
        CalibrationError: a norm puts out NaN or infinity.
    """
    names = [norm.name for norm in find_norms(float_model)]
    outputs = {name: output for name in names if (output := output_of(float_model, name))}
    if not outputs:
        return {}

    def moments(model: Model, tensors: Sequence[str]) -> list[Moments]:
        session = open_session(with_outputs(model, tensors), threads=threads, folder=folder)
        found = (run(session, feed, tensors, where="a calibration sample") for feed in feeds)
        return _moments(found, tensors, on_feed)

    wanted = dict(zip(outputs, moments(float_model, [*outputs.values()]), strict=True))
    tweaks: dict[str, NormTweak] = {}
    for name in outputs:
        quantized = emit(tweaks)
        output = output_of(quantized, name)
        if output is None:
            continue
        [made] = moments(quantized, [output])
        tweaks[name] = made.towards(wanted[name])
    return tweaks


def passes(float_model: Model) -> int:
    """Return how often the feeds are run."""
    norms = len(find_norms(float_model))
    return norms + 1 if norms else 0


def _moments(
    found: Iterable[list[np.ndarray]], tensors: Sequence[str], on_feed: Callable[[], None]
) -> list[Moments]:
    """Return the moments of channels on the last axis; sums alone are kept."""
    sums: list[list[F64]] = [[] for _ in tensors]
    counts = [0] * len(tensors)
    for arrays in found:
        for i, (name, array) in enumerate(zip(tensors, arrays, strict=True)):
            rows = array.reshape(-1, array.shape[-1]).astype(np.float64)
            if not np.isfinite(rows).all():
                raise CalibrationError(
                    f"tensor '{name}' takes a NaN or infinite value; check the preprocessing"
                )
            parts = [rows.sum(axis=0), np.square(rows).sum(axis=0)]
            sums[i] = [a + b for a, b in zip(sums[i], parts, strict=True)] if sums[i] else parts
            counts[i] += len(rows)
        on_feed()
    result = []
    for (first, second), count in zip(sums, counts, strict=True):
        mean = first / max(count, 1)
        variance = second / max(count, 1) - np.square(mean)
        result.append(Moments(mean, np.sqrt(np.maximum(variance, 0.0))))
    return result
