"""The damage of layers and tensors, one by one, and of what is left in float together."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from ptq.config import Override
from ptq.graph.switches import SiteSwitches, SwitchedModel
from ptq.numerics.ranks import spearman
from ptq.overrides import Overrides
from ptq.report.sensitivity import KeptFloat, PartDamage, Ranking, Sensitivity
from ptq.search.kept_float import Found, Known, best_of_count, fewest_for
from ptq.search.ledger import Ledger
from ptq.search.trials import Damage, Trials
from ptq.version import Version
from ptq.work import Work

#: Why a node stays in float in a trial.
_TRIED = "left in float as a trial"

#: What an activation is made by that no layer makes.
_INPUT = "input"


class Sensing:
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

    def keep(
        self, found: Sensitivity, *, count: int | None, min_sqnr_db: float | None
    ) -> KeptFloat | None:
        """Choose layers to leave in float, up to a number, or as few as reach a figure."""
        spared = [max(layer.spared * self.total.noise, 0.0) for layer in found.layers]
        alone = [layer.alone.noise / (found.added_up or 1.0) for layer in found.layers]
        figures = [dict(zip(self.sites, f, strict=True)) for f in (spared, alone)]
        known = Known(self.total.noise, figures, {name: self._beside(name) for name in self.sites})
        if min_sqnr_db is not None:
            limit = float(10.0 ** (-min_sqnr_db / 10))
            return self._kept(fewest_for(known, limit, self._in_float), limit)
        if count is not None:
            return self._kept(best_of_count(known, count, self._in_float), None)
        return None

    def _beside(self, name: str) -> tuple[str, ...]:
        """Return the layers that share an activation with this one."""
        here = self.sites[name]
        touched = {*here.reads, *here.writes}
        near = (s for s in self.sites.values() if touched & {*s.reads, *s.writes})
        return tuple(site.name for site in near if site.name != name)

    def _in_float(self, sets: Sequence[tuple[str, ...]]) -> list[Damage]:
        """Measure what it gives to leave layers in float, as the overrides of a recipe do it."""
        return self._try([self._without(self._matched(nodes)) for nodes in sets])

    def _kept(self, found: Found, limit: float | None) -> KeptFloat:
        remaining = self._remaining(self._matched(found.nodes))
        left = [name for name in self.sites if name not in remaining]
        return KeptFloat(
            nodes=found.nodes,
            followed=len(left) - len(found.nodes),
            predicted=found.predicted,
            measured=found.measured,
            reached=limit is None or found.measured.noise <= limit,
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
