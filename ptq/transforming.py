"""Transform the float model before it is quantized, as far as that makes the error less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import log10

import msgspec

from ptq.awq import awq_factors
from ptq.config import QuantizeConfig
from ptq.data import Feed
from ptq.data.held_feeds import HeldFeeds
from ptq.errors import ConfigError
from ptq.graph.rescale.record import Rescaling
from ptq.graph.rescale.smooth import find_smoothable, inserted
from ptq.inputs import Inputs
from ptq.progress import Stages
from ptq.report.decibels import decibels
from ptq.rescaling import at_strength, equalizing_factors
from ptq.schemes import SchemeWriter
from ptq.smoothing import smoothing_factors
from ptq.source import Source
from ptq.trial import Trial
from ptq.work import Work

#: Samples on which each candidate is tried: ranges are observed and errors measured on them.
_TRIED_SAMPLES = 32

#: The error must fall below this share of what it is without: other samples differ by as much.
_WORTH = 0.9

#: What factors are raised to. Equalizing makes weights even, but activations at times less so.
_STRENGTHS = (1.0, 0.5)


def transformed(
    source: Source, inputs: Inputs, config: QuantizeConfig, stages: Stages, *, threads: int
) -> Source:
    """Return the float model with what the settings ask for, or as it was where that is better.

    Each candidate is tried on a few samples of the calibration data, with all in integers that can
    be, and that of the least error of the output taken.

    Args:
        source: the prepared model.
        inputs: the data.
        config: the settings.
        stages: told of what takes time.
        threads: how many feeds to observe at once.

    Raises:
        ConfigError: there is no calibration data, or statistics are given in its place.
    """
    asked = {"--equalize": config.equalize, "--smooth": config.smooth, "--awq": config.awq}
    if not any(asked.values()) and not _may_smooth(source, inputs, config):
        return source
    data = inputs.calibration
    if data is None or inputs.statistics is not None:
        option = next(name for name, given in asked.items() if given)
        raise ConfigError(
            f"{option} changes the tensors of which statistics are taken; give --calib-data, and "
            "no --stats"
        )
    feeds = list(islice(iter(data), _TRIED_SAMPLES))
    trials = _Trials(source, feeds, config, stages, threads, Trial(feeds, source))
    found = source
    if config.equalize:
        factors = equalizing_factors(source, data, stages, threads=threads)
        given = [at_strength(factors, strength) for strength in _STRENGTHS]
        why = "no layers are linked by what a scale passes through"
        found = trials.best("equalized", found, [r.equalized for r in given], why)
    if config.smooth or (config.smooth is None and trials.falls_short(found)):
        smoothed = smoothing_factors(found, data, config, stages, threads=threads)
        why = "no dense layer's error was less with it"
        found = trials.best("smoothed", found, [smoothed], why)
    if config.awq:
        spared = awq_factors(found, data, config, stages, threads=threads)
        why = "no dense layer's error was less with it"
        found = trials.best("smoothed", found, [spared], why)
    return found


def _may_smooth(source: Source, inputs: Inputs, config: QuantizeConfig) -> bool:
    """Whether to see if smoothing is needed, where nothing is said: in transformers, on real data.

    They are made of dense layers; elsewhere it would only take time.
    """
    data = inputs.calibration
    if config.smooth is not None or not config.protected_db or inputs.statistics is not None:
        return False
    if data is None or data.synthetic:
        return False
    convolutions = sum(1 for node in source.model.graph if node.op_type == "Conv")
    return len(find_smoothable(source.model)) > convolutions


@dataclass(frozen=True, slots=True)
class _Trials:
    """Measures candidates on a few feeds.

    Attributes:
        source: the prepared model, before anything was rescaled.
        feeds: what to observe and to measure on.
        config: the settings.
        stages: told of what takes time.
        threads: how many feeds to observe at once.
        trial: what the prepared model makes of them.
        known: errors that were measured, by the graph.
    """

    source: Source
    feeds: Sequence[Feed]
    config: QuantizeConfig
    stages: Stages
    threads: int
    trial: Trial
    known: dict[int, float] = field(default_factory=dict)

    def falls_short(self, now: Source) -> bool:
        """Whether the outputs are further off than the settings allow, if they say anything."""
        if not self.config.protected_db:
            return False
        with self.stages.stage("smoothed"):
            return self._error(now) > 10 ** (-self.config.protected_db / 10)

    def _error(self, source: Source) -> float:
        """Return the relative squared error of the outputs with all in integers that can be."""
        graph = id(source.model)
        if graph not in self.known:
            inputs = Inputs(HeldFeeds(self.feeds, self.source.inputs))
            self.known[graph] = self._writer(source, inputs).error(self.trial)
        return self.known[graph]

    def best(
        self, what: str, now: Source, candidates: Sequence[dict[str, str]], why: str
    ) -> Source:
        """Return the model as it is, or with the factors of the least error.

        Args:
            what: the field of `Rescaling`.
            now: the model without them.
            candidates: factors; of empty ones there is nothing to try.
            why: there are none.
        """
        tried = [now, *(self._with(what, now, factors) for factors in candidates if factors)]
        if len(tried) == 1:
            return _noted(now, f"{self._named(what)}: nothing, for {why}")
        with self.stages.stage(self._named(what)):
            errors = [self._error(source) for source in tried]
        chosen = min(range(len(tried)), key=errors.__getitem__)
        if errors[chosen] >= _WORTH * errors[0]:
            figures = ", ".join(map(_decibels, errors))
            return _noted(
                now,
                f"{self._named(what)}: nothing, for the output's error was not a tenth less with "
                f"it ({figures})",
            )
        return tried[chosen]

    def _writer(self, source: Source, inputs: Inputs) -> Work | SchemeWriter:
        if self.config.scheme == "static":
            return Work(source, inputs, self.config, Stages(), self.threads)
        return SchemeWriter(source, inputs, self.config, Stages(), convolutions=False)

    def _with(self, what: str, now: Source, factors: dict[str, str]) -> Source:
        rescaling: Rescaling = msgspec.structs.replace(now.rescaling, **{what: factors})
        found = replace(now, model=rescaling.apply(self.source.model), rescaling=rescaling)
        if what == "equalized":
            return _noted(found, f"equalized: {len(factors)} groups of tensors")
        by_mul = sum(1 for _ in inserted(now.model, factors))
        more = f", {by_mul} of them by a Mul in front of it" if by_mul else ""
        line = f"{self._named(what)}: what dense layers read, {len(factors)} tensors{more}"
        return _noted(found, line)

    def _named(self, what: str) -> str:
        """Return how the report begins: both methods divide what dense layers read."""
        return "awq" if self.config.awq and what == "smoothed" else what


def _noted(source: Source, line: str) -> Source:
    return replace(source, prepared=(*source.prepared, line))


def _decibels(error: float) -> str:
    return decibels(-10 * log10(error) if error > 0 else None, equal="exact")
