"""Transform the float model before it is quantized, as far as that makes the error less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil, log10

import msgspec

from ptq.awq import awq_factors
from ptq.config import QuantizeConfig
from ptq.data import Feed
from ptq.data.held_feeds import HeldFeeds
from ptq.datafree import known_tops
from ptq.errors import ConfigError
from ptq.gating import gate_factors
from ptq.graph.rescale.gates import find_cut
from ptq.graph.rescale.record import Rescaling
from ptq.graph.rescale.smooth import find_smoothable, inserted
from ptq.inputs import Inputs
from ptq.progress import Stages
from ptq.report.decibels import decibels
from ptq.rescaling import at_strength, divided_normals, equalizing_factors
from ptq.schemes import SchemeWriter
from ptq.smoothing import smoothing_factors
from ptq.source import Source
from ptq.splitting import split_channels
from ptq.trial import Trial
from ptq.work import Work

#: Samples on which each candidate is tried: ranges are observed and errors measured on them.
_TRIED_SAMPLES = 32

#: The error must fall below this share of what it is without: other samples differ by as much.
_WORTH = 0.9

#: The shares of the gates that are computed apart in a trial: each of them costs time.
_SHARES = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)

#: Fewer gates apart are taken where the error is at most this much of the least one (1 dB).
_NEAR = 1.25

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
    asked, unasked = config.transforms, _unasked(source, inputs, config)
    if not asked and not unasked:
        return source
    data = inputs.calibration
    if data is None or inputs.statistics is not None:
        raise ConfigError(
            f"{asked[0]} changes the tensors of which statistics are taken; give --calib-data, and "
            "no --stats"
        )
    feeds = list(islice(iter(data), _TRIED_SAMPLES))
    trials = _Trials(source, feeds, config, stages, threads, Trial(feeds, source))
    found = source

    def wanted(option: str) -> bool:
        return option in asked or (option in unasked and trials.falls_short(found))

    if wanted("--split-gates"):
        # unasked, only what costs no time: the cut
        given = gate_factors(found, data, stages, threads=threads) if config.split_gates else {}
        found = trials.gated(found, given)
    if config.equalizes:
        tops = known_tops(source) if config.data_free else {}
        factors = equalizing_factors(source, data, stages, threads=threads, tops=tops)
        candidates = [at_strength(factors, strength) for strength in _STRENGTHS]
        why = "no layers are linked by what a scale passes through"
        found = trials.best("equalized", found, [r.equalized for r in candidates], why)
    if config.split_outliers:
        split = split_channels(found, data, config, stages, threads=threads)
        why = "no dense layer's error was a fifth less with it"
        found = trials.best("split", found, [split], why)
    if wanted("--smooth"):
        smoothed = smoothing_factors(found, data, config, stages, threads=threads)
        why = "no dense layer's error was less with it"
        found = trials.best("smoothed", found, [smoothed], why)
    if config.awq:
        spared = awq_factors(found, data, config, stages, threads=threads)
        why = "no dense layer's error was less with it"
        found = trials.best("smoothed", found, [spared], why)
    return found


def _unasked(source: Source, inputs: Inputs, config: QuantizeConfig) -> frozenset[str]:
    """Return the options that are tried where nothing is said, if the outputs fall short.

    Only on real data, and where the graph makes it likely that they help: transformers are made of
    dense layers.
    """
    data = inputs.calibration
    if (
        config.data_free
        or not config.protected_db
        or inputs.statistics is not None
        or data is None
        or data.synthetic
    ):
        return frozenset()
    found = set()
    if config.split_gates is None and find_cut(source.model):
        found.add("--split-gates")
    convolutions = sum(1 for node in source.model.graph if node.op_type == "Conv")
    if config.smooth is None and len(find_smoothable(source.model)) > convolutions:
        found.add("--smooth")
    return frozenset(found)


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
        known: errors that were measured, by what was rescaled.
    """

    source: Source
    feeds: Sequence[Feed]
    config: QuantizeConfig
    stages: Stages
    threads: int
    trial: Trial
    known: dict[bytes, float] = field(default_factory=dict)

    def falls_short(self, now: Source) -> bool:
        """Whether the outputs are further off than the settings allow, which say something."""
        with self.stages.stage("look"):
            return self._error(now) > 10 ** (-self.config.protected_db / 10)

    def _error(self, source: Source) -> float:
        """Return the relative squared error of the outputs with all in integers that can be."""
        done = msgspec.json.encode(source.rescaling)
        if done not in self.known:
            inputs = Inputs(HeldFeeds(self.feeds, self.source.inputs))
            self.known[done] = self._writer(source, inputs).error(self.trial)
        return self.known[done]

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
        tried = [self._with(what, now, factors) for factors in candidates if factors]
        if not tried:
            return _noted(now, f"{self._named(what)}: nothing, for {why}")
        errors = self._errors(self._named(what), [now, *tried])
        chosen = min(range(len(errors)), key=errors.__getitem__)
        return self._settled(self._named(what), [now, *tried], errors, chosen)

    def gated(self, now: Source, factors: dict[str, str]) -> Source:
        """Return the model as it is, or with what is shut out cut, and some gates apart.

        Of candidates that are within 1 dB of the best one, that with the fewest gates apart is
        taken.

        Args:
            now: the model without them.
            factors: those of the gates that gain most first.
        """
        cut = len(find_cut(now.model))
        if not cut:
            return _noted(now, "gates: nothing, for no HardSwish follows a convolution")
        names = list(factors)
        counts = sorted({ceil(share * len(names)) for share in _SHARES})
        tried = [self._apart(now, {n: factors[n] for n in names[:k]}, cut) for k in counts]
        errors = self._errors("gates", [now, *tried])
        least = min(errors[1:])
        chosen = next(i for i, e in enumerate(errors) if i and e <= _NEAR * least)
        return self._settled("gates", [now, *tried], errors, chosen)

    def _errors(self, what: str, tried: Sequence[Source]) -> list[float]:
        """Return the error of each, measured or known."""
        errors = []
        with self.stages.stage(what, len(tried)) as step:
            for source in tried:
                errors.append(self._error(source))
                step()
        return errors

    def _settled(
        self, what: str, tried: Sequence[Source], errors: Sequence[float], chosen: int
    ) -> Source:
        """Return the chosen model, or the first if the error is not a tenth less with it."""
        if errors[chosen] < _WORTH * errors[0]:
            return tried[chosen]
        figures = ", ".join(map(_decibels, errors))
        why = f"the output's error was not a tenth less with it ({figures})"
        return _noted(tried[0], f"{what}: nothing, for {why}")

    def _apart(self, now: Source, factors: dict[str, str], cut: int) -> Source:
        rescaling: Rescaling = msgspec.structs.replace(now.rescaling, gated=factors, cut=True)
        found = replace(now, model=rescaling.apply(self.source.model), rescaling=rescaling)
        line = f"gates: {len(factors)} of {cut} computed apart, with a factor for each channel"
        return _noted(found, line if factors else f"gates: the inputs of {cut} cut at -3")

    def _writer(self, source: Source, inputs: Inputs) -> Work | SchemeWriter:
        if self.config.scheme == "static":
            return Work(source, inputs, self.config, Stages(), self.threads)
        return SchemeWriter(source, inputs, self.config, Stages(), convolutions=False)

    def _with(self, what: str, now: Source, factors: dict[str, str]) -> Source:
        rescaling: Rescaling = msgspec.structs.replace(now.rescaling, **{what: factors})
        start = self.source
        normals = divided_normals(start.model, start.normals, rescaling)
        found = replace(
            now, model=rescaling.apply(start.model), rescaling=rescaling, normals=normals
        )
        if what == "equalized":
            return _noted(found, f"equalized: {len(factors)} groups of tensors")
        if what == "split":
            more = f"channels of what dense layers read, {len(factors)} tensors"
            return _noted(found, f"split: {more}")
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
