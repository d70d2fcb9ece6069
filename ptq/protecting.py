"""Find the layers that must stay in float for the outputs to stay near, by measuring.

Detection heads, the first convolutions of a network that reads documents, a residual stream with
outliers: which layers they are differs from network to network, and their names tell nothing. So
groups of tensors are quantized alone until those are found that do most of the damage
(`ptq.search.locate`), and the layers that round them are left in float, as few and as cheap ones as
will do (`ptq.search.spare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ptq.data.feeds import Feed
from ptq.graph.switches import SiteSwitches
from ptq.numerics.arrays import F64
from ptq.report.protection import ProtectedLayer, Protection
from ptq.runtime.sizes import tensor_shapes
from ptq.search.locate import locate
from ptq.search.spare import least_noise
from ptq.search.trials import Damage, Trials
from ptq.version import Version
from ptq.work import Work

#: How many samples the groups are measured on: enough to tell much from little.
_LOCATED_ON = 2

#: How many groups are measured at most.
_TRIALS = 64

#: How much of the work may be left in float, or the result would be no integer model any more.
_MOST_WORK = 0.25

#: How much all layers count beside their work, so that no crowd of small ones is left in float.
_COUNTED = 0.5

#: Shares of work and count together that are tried, one after the other.
_SHARES = (0.03, 0.04, 0.06, 0.08, 0.11, 0.16, 0.22, 0.31, 0.43, 0.6)

#: Where the outputs do not come as near as they should, a decibel is worth so much of the work.
_WORK_OF_DB = 0.04

#: Why they stay in float.
_WHY = "protected: in integers it does too much to the outputs"


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor, or what a layer alone has.

    Attributes:
        on: the switches that quantize it.
        layers: those that round it, by number.
    """

    on: frozenset[str]
    layers: tuple[int, ...]


def protect(
    work: Work, version: Version, feeds: Sequence[Feed], wanted_db: float
) -> Protection | None:
    """Return what to leave in float, or ``None`` if the outputs are as near as they should be.

    Deterministic: nothing is timed.

    Args:
        work: what writes the model.
        version: everything in integers that can be.
        feeds: real samples to measure on, one or more.
        wanted_db: the least SQNR of the outputs.
    """
    switched = work.switched(version)
    sites = switched.sites
    names = {site.name for site in sites}
    trials = Trials(switched, feeds, threads=work.threads)
    total = trials.damage(switched.of_sites(names))
    if total.sqnr_db >= wanted_db:
        return None
    limit = float(10 ** (-wanted_db / 10))
    parts = _parts(sites)
    few = trials.first(_LOCATED_ON)
    with work.stages.stage("protect", _TRIALS) as step:

        def measure(groups: Sequence[range]) -> list[float]:
            wanted = [frozenset().union(*(parts[i].on for i in group)) for group in groups]
            found = []
            for damage in few(wanted):
                found.append(damage.noise)
                step()
            return found

        located = locate(len(parts), measure, enough=limit / 4, trials=_TRIALS)
    costs = _work_of(work, version.keep_float, sites, feeds[0])
    few_layers = _COUNTED / len(sites)
    touching = [part.layers for part in parts]

    def remaining(chosen: Sequence[int]) -> frozenset[str]:
        kept = dict.fromkeys((sites[i].name for i in chosen), _WHY)
        return work.integer_without({**version.keep_float, **kept})

    tried: dict[tuple[int, ...], Damage] = {(): total}
    for share in _SHARES:
        chosen = least_noise(located.noise, touching, costs + few_layers, share)
        if chosen in tried or costs[list(chosen)].sum() > _MOST_WORK:
            continue
        tried[chosen] = trials.damage(switched.of_sites(remaining(chosen)))
        if tried[chosen].noise <= limit:
            break
    else:

        def worth(some: tuple[int, ...]) -> float:
            return tried[some].sqnr_db - float(costs[list(some)].sum()) / _WORK_OF_DB

        chosen = max(tried, key=worth)
    damage = tried[chosen]
    return Protection(
        wanted_db=wanted_db,
        before_db=total.sqnr_db,
        after_db=damage.sqnr_db,
        layers=_layers(sites, chosen, parts, located.noise),
        followed=len(names - remaining(chosen)) - len(chosen),
        work=float(costs[list(chosen)].sum()),
        samples=len(feeds),
        trials=located.measured + len(tried),
    )


def reasons(found: Protection) -> dict[str, str]:
    """Return the layers that stay in float, with the reason."""
    return dict.fromkeys((layer.name for layer in found.layers), _WHY)


def _parts(sites: Sequence[SiteSwitches]) -> list[_Part]:
    """Return tensors, and what single layers have, in the order of the graph."""
    writers: dict[str, list[int]] = {}
    readers: dict[str, list[int]] = {}
    for number, site in enumerate(sites):
        for tensor in site.writes:
            writers.setdefault(tensor, []).append(number)
        for tensor in site.reads:
            readers.setdefault(tensor, []).append(number)
    parts: dict[tuple[str, str], _Part] = {}

    def add_tensor(tensor: str) -> None:
        made, read = writers.get(tensor, []), readers.get(tensor, [])
        on = {sites[i].writes[tensor] for i in made} or {sites[i].reads[tensor] for i in read}
        layers = tuple(dict.fromkeys((*made, *read)))
        parts.setdefault(("tensor", tensor), _Part(frozenset(on), layers))

    for number, site in enumerate(sites):
        for tensor in site.reads:
            add_tensor(tensor)
        if site.inner:
            parts["layer", site.name] = _Part(frozenset(site.inner), (number,))
        for tensor in site.writes:
            add_tensor(tensor)
    return list(parts.values())


def _work_of(
    work: Work, keep_float: Mapping[str, str], sites: Sequence[SiteSwitches], feed: Feed
) -> F64:
    """Return each layer's share of the work: of the products, and of the values that it writes."""
    results = [site.result for site in sites]
    shapes = tensor_shapes(work.source.model, results, feed, folder=work.source.folder)
    products = work.products_per_value(keep_float)
    values = [float(prod(shapes[s.result])) * (1.0 + products.get(s.name, 0.0)) for s in sites]
    return np.array(values) / (sum(values) or 1.0)


def _layers(
    sites: Sequence[SiteSwitches], chosen: Sequence[int], parts: Sequence[_Part], noise: F64
) -> tuple[ProtectedLayer, ...]:
    shares: Mapping[int, float] = {
        i: float(sum(n for p, n in zip(parts, noise, strict=True) if i in p.layers)) for i in chosen
    }
    total = float(noise.sum()) or 1.0
    return tuple(
        ProtectedLayer(name=sites[i].name, op_type=sites[i].op_type, share=shares[i] / total)
        for i in sorted(chosen, key=lambda i: (-shares[i], i))
    )
