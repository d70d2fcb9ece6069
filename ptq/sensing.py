"""`ptq sensitivity`: which layers do the damage, measured one by one at the network's output."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from ptq import __version__
from ptq.comparing import CompareOptions, compare_feeds
from ptq.config import PLACE_ALL, PLACE_AUTO, Override, QuantizeConfig
from ptq.data import Dataset, Feed, open_dataset
from ptq.data.feeds import hash_feed
from ptq.errors import ConfigError
from ptq.files import staged
from ptq.graph.load import model_files
from ptq.graph.protos import parse_tensor
from ptq.graph.switches import SiteSwitches, SwitchedModel
from ptq.numerics.ranks import spearman
from ptq.options import RunOptions
from ptq.overrides import Overrides
from ptq.pipeline import Data, begin
from ptq.place.memory import cache_folder
from ptq.places import require_free, require_text
from ptq.progress import Stages
from ptq.report.sensitivity import KeptFloat, PartDamage, Ranking, Sensitivity, ranked
from ptq.runtime.host import host_key
from ptq.search.allocate import FLOAT, Choice, least_cost, least_damage
from ptq.search.ledger import SCHEMA, Ledger
from ptq.search.trials import Damage, Trials
from ptq.version import Version
from ptq.work import Work

#: Why a node stays in float in a trial.
_TRIED = "left in float as a trial"

#: How many of the most damaging layers by each figure are tried as the next to leave in float.
_TRIED_FIRST = 6

#: What an activation is made by that no layer makes.
_INPUT = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityOptions:
    """What to measure.

    Attributes:
        run: where data comes from and how many calibration samples and threads to use; the damage
            is measured on its evaluation data where there is any, else on the calibration data.
            Nothing is written to its places but the JSON.
        trial_samples: on how many samples each trial is measured, evenly spaced over the data.
        tensors: whether to measure each activation and each weight too, not only whole layers.
        keep_float: how many layers to choose to leave in float.
        min_sqnr: the least SQNR in dB to reach with as few layers in float as possible.
        state: the file that keeps results, so that an interrupted run goes on; by default one in
            the cache folder of `ptq`.
    """

    run: RunOptions = field(default_factory=RunOptions)
    trial_samples: int = 8
    tensors: bool = False
    keep_float: int | None = None
    min_sqnr: float | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.trial_samples < 1:
            raise ConfigError("--trial-samples must be 1 or more")
        if self.keep_float is not None and self.min_sqnr is not None:
            raise ConfigError("--keep-float and --min-sqnr exclude each other; leave one out")
        if self.keep_float is not None and self.keep_float < 1:
            raise ConfigError("--keep-float must be 1 or more")


def sensitivity(
    model: str | os.PathLike[str],
    calibration: Data | None,
    config: QuantizeConfig | None = None,
    options: SensitivityOptions | None = None,
) -> Sensitivity:
    """Measure what quantizing each layer, and leaving each layer in float, does to the output.

    Everything that the target runs counts as quantized, unless ``config.place`` names it.

    Example:
        >>> found = ptq.sensitivity("model.onnx", "calib.npz")
        >>> max(found.layers, key=lambda layer: layer.spared).name
        '/head/Conv'

    Args:
        model: the file of a float32 model.
        calibration: real inputs, as for `ptq.quantize`.
        config: how to quantize; static schemes only.
        options: what to measure, and on what.

    Raises:
        ConfigError: a setting is wrong, or the state is of another run.
        ModelError: the model cannot be read, or has nothing to quantize.
        DataError: the data does not fit the model.
        CalibrationError: the data does not determine a range.
        VerificationError: the quantized model gives NaN where the float one does not.
    """
    options = options or SensitivityOptions()
    config = _all_placed(config or QuantizeConfig())
    stages = Stages(options.run.on_progress)
    read = [calibration, options.run.evaluation, options.run.statistics]
    _require_places(Path(model), read, options)
    work = begin(model, calibration, config, options=options.run, stages=stages)
    weights = model_files(work.source.path)[1:]
    report = options.run.report
    require_free([report], work.source.path, [*read, *weights], force=options.run.force)
    data = _trial_data(work, calibration, options)
    feeds = list(islice(iter(data), options.trial_samples))
    found = msgspec.structs.replace(
        _measured(work, feeds, options),
        data=data.source,
        samples=len(feeds),
        notices=tuple(_notices(work, data)),
    )
    if report is not None:
        with staged(report, found.to_json()):
            pass
    return found


def _require_places(model: Path, read: Sequence[Data | None], options: SensitivityOptions) -> None:
    """Refuse places that are something else, or the same."""
    report, state = options.run.report, options.state
    require_text([model, report, state])
    if report is not None and state is not None and report.absolute() == state.absolute():
        raise ConfigError("--json and --state name the same file; give two")
    if state is not None:  # ours may be there
        require_free([state], model, read, force=True)


def _measured(work: Work, feeds: Sequence[Feed], options: SensitivityOptions) -> Sensitivity:
    """Quantize into a file that goes again, and measure."""
    with TemporaryDirectory(prefix="ptq-") as folder:
        path = Path(folder) / "quantized.onnx"
        version = work.write(path, "qdq")
        proxies = _proxies(work, path, feeds, options)
    key, switched = _key(work, version, feeds), work.switched(version)
    trials = Trials(switched, feeds, threads=options.run.threads)
    with Ledger(_state(options, key), key) as ledger:
        sensing = _Sensing(work, version, switched, ledger, trials)
        found = sensing.measure(proxies, tensors=options.tensors)
        kept = sensing.keep(found, options)
    return msgspec.structs.replace(
        found, kept=kept, trials=sensing.measured, resumed=sensing.remembered
    )


def _notices(work: Work, data: Dataset) -> Iterator[str]:
    yield from dict.fromkeys((*work.inputs.notices(), *data.notices))
    if data.synthetic:
        yield "the inputs are random numbers: real ones give other damages"


def _all_placed(config: QuantizeConfig) -> QuantizeConfig:
    """Return settings that quantize all that can be: what costs say is no matter of accuracy."""
    if config.scheme != "static":
        raise ConfigError(
            f"sensitivity is measured of static quantization, not of --scheme {config.scheme}"
        )
    auto = config.place == (PLACE_AUTO,)
    return msgspec.structs.replace(config, place=(PLACE_ALL,)) if auto else config


def _trial_data(work: Work, calibration: Data | None, options: SensitivityOptions) -> Dataset:
    given: Data | None = options.run.evaluation or calibration
    if given is None:
        raise ConfigError("damage is measured on data; give --calib-data or --eval-data")
    if isinstance(given, Dataset):
        return given
    return open_dataset(
        given,
        work.source.inputs,
        samples=options.trial_samples,
        seed=work.config.seed,
        images=options.run.images,
        tensor_parser=parse_tensor,
    )


def _proxies(
    work: Work, path: Path, feeds: Sequence[Feed], options: SensitivityOptions
) -> dict[str, tuple[float, float]]:
    """Return by tensor its isolated noise over the signal, and that over its accumulated noise."""
    comparison = compare_feeds(
        work.source,
        path,
        lambda: iter(feeds),
        CompareOptions(threads=options.run.threads),
        expected=len(feeds),
        stages=work.stages,
    )
    found = {}
    for layer in comparison.layers:
        isolated, accumulated = (_noise(x) for x in (layer.isolated_sqnr_db, layer.sqnr_db))
        found[layer.tensor] = isolated, isolated / accumulated if accumulated else 0.0
    return found


def _noise(sqnr_db: float | None) -> float:
    """Return noise over signal; of equal tensors, which have no SQNR, it is none."""
    return 0.0 if sqnr_db is None else float(10.0 ** (-sqnr_db / 10))


def _key(work: Work, version: Version, feeds: Sequence[Feed]) -> str:
    """Return a digest of everything that the result of a trial depends on."""
    hasher = hashlib.sha256()
    about = [SCHEMA, __version__, host_key(), work.source.digest, work.config]
    hasher.update(msgspec.json.encode(about, order="sorted"))
    hasher.update(version.plan.to_json())
    for feed in feeds:
        hash_feed(hasher, feed)
    return hasher.hexdigest()


def _state(options: SensitivityOptions, key: str) -> Path | None:
    if options.state is not None:
        return options.state
    folder = cache_folder()
    return None if folder is None else folder / "sensitivity" / f"{key[:32]}.jsonl"


class _Sensing:
    """One measurement under way.

    Attributes:
        measured: how many combinations were asked for.
        remembered: how many of them were known.
    """

    def __init__(
        self,
        work: Work,
        version: Version,
        switched: SwitchedModel,
        ledger: Ledger,
        trials: Trials,
    ) -> None:
        self.work = work
        self.version = version
        self.switched = switched
        self.ledger = ledger
        self.trials = trials
        self.sites = {site.name: site for site in switched.sites}
        self.measured = self.remembered = 0
        self._asked: set[str] = set()
        self.total = Damage(noise=0.0)

    def measure(self, proxies: Mapping[str, tuple[float, float]], *, tensors: bool) -> Sensitivity:
        """Measure the layers one by one, and each tensor if that is asked for."""
        every = self.switched.of_sites(self.sites)
        wanted = [every]
        for name in self.sites:
            wanted += [self.switched.of_sites({name}), self._without([name])]
        of_tensors = {t: self.switched.of_tensor(t) for t in self._tensors()} if tensors else {}
        for on in of_tensors.values():
            wanted += [on, every - on]
        self.total, *damages = self._try(wanted)
        pairs = zip(damages[::2], damages[1::2], strict=True)
        layers = [self._layer(s, *p, proxies) for s, p in zip(self.sites.values(), pairs)]  # noqa: B905 - the tensors' pairs remain
        parts = [self._tensor(t, *p) for t, p in zip(of_tensors, pairs, strict=True)]
        alone = sum(layer.alone.noise for layer in layers)
        return Sensitivity(
            model=str(self.work.source.path),
            data="",
            samples=0,
            quantized=self.total,
            added_up=alone / self.total.noise if self.total.noise else 0.0,
            layers=tuple(layers),
            tensors=tuple(parts),
            rankings=tuple(_rankings(layers)),
        )

    def keep(self, found: Sensitivity, options: SensitivityOptions) -> KeptFloat | None:
        """Choose layers to leave in float, as many as asked for, or as few as reach a figure."""
        if options.keep_float is None and options.min_sqnr is None:
            return None
        limit = None if options.min_sqnr is None else 10.0 ** (-options.min_sqnr / 10)
        tried = [self._greedy(found, options.keep_float, limit)]
        for figures in (
            [max(layer.spared * self.total.noise, 0.0) for layer in found.layers],
            [layer.alone.noise / (found.added_up or 1.0) for layer in found.layers],
        ):
            damages = dict(zip(self.sites, figures, strict=True))
            if limit is None:
                tried.append(self._kept(self._best(damages, options.keep_float or 1), damages))
            else:
                tried.append(self._fewest(damages, limit))
        # those that reach it first; of them the fewest, then the best
        return min(
            tried,
            key=lambda k: (not k.reached, limit is not None and len(k.nodes), k.measured.noise),
        )

    def _greedy(self, found: Sensitivity, count: int | None, limit: float | None) -> KeptFloat:
        """Add layer after layer, each the one with which least noise is measured.

        Noise that comes in by a tensor between two layers goes away only with both, which no sum
        of single damages tells. Of all layers, the most damaging ones by either figure are tried,
        and those that share a tensor with what is in float already.
        """
        spared = {layer.name: layer.spared * self.total.noise for layer in found.layers}
        orders = [ranked(found.layers, by) for by in ("spared", "alone")]
        best = self._kept([], spared, limit)
        while len(best.nodes) < min(len(self.sites), count or len(self.sites)):
            if limit is not None and best.reached:
                break
            open_ = [[p.name for p in order if p.name not in best.nodes] for order in orders]
            names = dict.fromkeys(name for order in open_ for name in order[:_TRIED_FIRST])
            names.update(dict.fromkeys(self._beside(best.nodes)))
            nodes = [(*best.nodes, name) for name in names]
            self._try([self._without(self._matched(each)) for each in nodes])  # all at once
            best = min(
                (self._kept(each, spared, limit) for each in nodes), key=lambda k: k.measured.noise
            )
        return best

    def _beside(self, nodes: Collection[str]) -> list[str]:
        """Return the layers that share a tensor with some of these."""
        touched = {t for n in nodes for t in (*self.sites[n].reads, *self.sites[n].writes)}
        return [
            name
            for name, site in self.sites.items()
            if name not in nodes and touched & {*site.reads, *site.writes}
        ]

    def _best(self, damages: Mapping[str, float], count: int) -> list[str]:
        """Return so many layers whose damage adds up to the most."""
        layers = [[Choice(FLOAT, 0.0, 1.0), Choice(8, d, 0.0)] for d in damages.values()]
        return _floats(damages, least_damage(layers, count).widths)

    def _fewest(self, damages: Mapping[str, float], limit: float) -> KeptFloat:
        """Return the fewest of the most damaging layers with which the noise is below a limit."""
        if self.total.noise <= limit:
            return self._kept([], damages, limit)
        layers = [[Choice(FLOAT, 0.0, 1.0), Choice(8, d, 0.0)] for d in damages.values()]
        # by adding up; noise that does not add up may take some more, or fewer
        rest = max(self.total.noise - sum(damages.values()), 0.0)
        count = len(_floats(damages, least_cost(layers, max(limit - rest, 0.0)).widths))
        order = sorted(damages, key=lambda name: damages[name], reverse=True)
        found = self._kept(order[:count], damages, limit)
        while not found.reached and count < len(order):
            count += 1
            found = self._kept(order[:count], damages, limit)
        while found.reached and count > 1:
            fewer = self._kept(order[: count - 1], damages, limit)
            if not fewer.reached:
                break
            found, count = fewer, count - 1
        return found

    def _kept(
        self, nodes: Sequence[str], damages: Mapping[str, float], limit: float | None = None
    ) -> KeptFloat:
        """Measure what it gives to leave layers in float, as the overrides of a recipe do it."""
        matched = self._matched(nodes)
        on = self._without(matched)
        [measured] = self._try([on])
        remaining = self._remaining(matched)
        left = [name for name in self.sites if name not in remaining]
        spared = sum(damages[name] for name in nodes)
        return KeptFloat(
            nodes=tuple(nodes),
            followed=len(left) - len(nodes),
            predicted=max(self.total.noise - spared, 0.0),
            measured=measured,
            reached=limit is None or measured.noise <= limit,
        )

    def _matched(self, nodes: Sequence[str]) -> list[str]:
        """Return the nodes that overrides for these match: names of tensors may be the same."""
        overrides = tuple(
            Override(match=glob.escape(n), op=self.sites[n].op_type, float=True) for n in nodes
        )
        config = msgspec.structs.replace(self.work.config, overrides=overrides)
        return list(Overrides(self.work.source.model, config).kept_float())

    def _try(self, wanted: Sequence[frozenset[str]]) -> list[Damage]:
        """Return the damage of each combination of switches, measured or remembered."""
        names = {on: _name(on) for on in wanted}
        fresh = {on: name for on, name in names.items() if name not in self._asked}
        new = {on: name for on, name in fresh.items() if self.ledger.get(name) is None}
        self._asked.update(fresh.values())
        self.measured += len(fresh)
        self.remembered += len(fresh) - len(new)
        if new:
            with self.work.stages.stage("measure", len(new)) as step:
                for name, damage in zip(new.values(), self.trials(new), strict=True):
                    self.ledger.add(name, damage)
                    step()
        return [self.ledger[names[on]] for on in wanted]

    def _without(self, nodes: Collection[str]) -> frozenset[str]:
        return self.switched.of_sites(self._remaining(nodes))

    def _remaining(self, nodes: Collection[str]) -> frozenset[str]:
        """Return the sites that remain where nodes are in float: an Add between them follows."""
        kept = {**self.version.keep_float, **dict.fromkeys(nodes, _TRIED)}
        return self.work.integer_without(kept)

    def _tensors(self) -> list[str]:
        """Return the tensors of all sites, in their order."""
        return list(
            dict.fromkeys(
                tensor
                for site in self.sites.values()
                for tensor in (*site.reads, *_weight(site), *site.writes)
            )
        )

    def _layer(
        self,
        site: SiteSwitches,
        alone: Damage,
        without: Damage,
        proxies: Mapping[str, tuple[float, float]],
    ) -> PartDamage:
        isolated, share = proxies.get(site.result, (None, None))
        return PartDamage(
            name=site.name,
            kind="layer",
            op_type=site.op_type,
            alone=alone,
            without=without,
            spared=self._spared(without),
            isolated=isolated,
            share=share,
            gain=alone.noise / isolated if isolated else None,
        )

    def _tensor(self, tensor: str, alone: Damage, without: Damage) -> PartDamage:
        makers = [s for s in self.sites.values() if tensor in s.writes]
        holders = [s for s in self.sites.values() if s.weight == tensor]
        return PartDamage(
            name=tensor,
            kind="weight" if holders else "activation",
            op_type=next((s.op_type for s in (*holders, *makers)), _INPUT),
            alone=alone,
            without=without,
            spared=self._spared(without),
        )

    def _spared(self, without: Damage) -> float:
        noise = self.total.noise
        return (noise - without.noise) / noise if noise else 0.0


def _weight(site: SiteSwitches) -> tuple[str, ...]:
    return () if site.weight is None else (site.weight,)


def _name(on: frozenset[str]) -> str:
    return hashlib.sha256("\n".join(sorted(on)).encode()).hexdigest()[:32]


def _floats(damages: Mapping[str, float], widths: Sequence[int]) -> list[str]:
    """Return the layers that are to be in float, those of most damage first."""
    chosen = [name for name, width in zip(damages, widths, strict=True) if width == FLOAT]
    return sorted(chosen, key=lambda name: damages[name], reverse=True)


def _rankings(layers: Sequence[PartDamage]) -> Iterator[Ranking]:
    for proxy in ("isolated", "share"):
        known = [layer for layer in layers if getattr(layer, proxy) is not None]
        figures = [getattr(layer, proxy) for layer in known]
        yield Ranking(
            proxy=proxy,
            layers=len(known),
            alone=spearman(figures, [layer.alone.noise for layer in known]),
            spared=spearman(figures, [layer.spared for layer in known]),
        )
