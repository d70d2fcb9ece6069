"""Transform the float model before it is quantized, as far as that makes the error less."""

from __future__ import annotations

from itertools import islice
from math import log10

from ptq.config import QuantizeConfig
from ptq.data.held_feeds import HeldFeeds
from ptq.errors import ConfigError
from ptq.graph.rescale.record import NOTHING, Rescaling
from ptq.progress import Stages
from ptq.rescaling import at_strength, equalizing_factors, rescaled
from ptq.source import Source
from ptq.work import Inputs, Trial, Work

#: Samples on which each strength is tried: its ranges are observed and its error measured on them.
_TRIED_SAMPLES = 16

#: What factors are raised to. Equalizing makes weights even, but activations at times less so.
_STRENGTHS = (1.0, 0.5)


def transformed(
    source: Source, inputs: Inputs, config: QuantizeConfig, stages: Stages, *, threads: int
) -> Source:
    """Return the float model with what the settings ask for, or as it was where that is better.

    Each strength of equalization is tried on a few samples of the calibration data, all in
    integers, and that of the least error of the output taken.

    Args:
        source: the prepared model.
        inputs: the data.
        config: the settings.
        stages: told of what takes time.
        threads: how many feeds to observe at once.

    Raises:
        ConfigError: there is no calibration data.
    """
    if not config.equalize:
        return source
    if inputs.calibration is None or inputs.statistics is not None:
        raise ConfigError(
            "--equalize changes the tensors of which statistics are taken; give --calib-data, and "
            "no --stats"
        )
    factors = equalizing_factors(source, inputs.calibration, stages, threads=threads)
    rescalings = [at_strength(factors, strength) for strength in _STRENGTHS]
    tried = [source] + [rescaled(source, r, _line(r)) for r in rescalings if r]
    if len(tried) == 1:
        return rescaled(source, NOTHING, "equalized: nothing, for no layers are linked so")
    feeds = list(islice(iter(inputs.calibration), _TRIED_SAMPLES))
    trial = Trial(feeds, source)
    few = Inputs(HeldFeeds(feeds, source.inputs))
    with stages.stage("equalize"):
        errors = [Work(s, few, config, Stages(), threads).error(trial) for s in tried]
    best = min(range(len(tried)), key=errors.__getitem__)
    figures = ", ".join(_decibels(error) for error in errors)
    if best == 0:
        line = f"equalized: nothing, for the output's error was not less with it ({figures})"
        return rescaled(source, NOTHING, line)
    return tried[best]


def _line(rescaling: Rescaling) -> str:
    return f"equalized: {len(rescaling.equalized)} groups of tensors"


def _decibels(error: float) -> str:
    return f"{-10 * log10(error):.1f} dB" if error > 0 else "exact"
