"""Choose layers to leave in float: by what their damages add up to, and by measuring.

Adding up is exact where noise is small and independent, and asks nothing of the network (ALGORITHMS
F3). What it cannot see is a tensor between two layers that stays quantized as long as one of both
is; so layers are also taken one after the other, each the one that measures best beside the others.
Of all that was tried, the best by measurement is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ptq.search.allocate import FLOAT, Choice, least_cost, least_damage
from ptq.search.trials import Damage

#: How many of the layers that do most by each figure are tried as the next one.
_TRIED_FIRST = 6

#: How many layers are taken one after the other; more of them come by adding up.
_STEPS = 8

#: Measures some sets of layers in float: the damage of each.
Measure = Callable[[Sequence[tuple[str, ...]]], Sequence[Damage]]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the layers before anything is combined.

    Attributes:
        total: noise of the output with everything quantized.
        figures: two or more ways of seeing each layer's part of that noise, 0 or more by name;
            all of the same layers.
        beside: by layer, those that share a tensor with it.
    """

    total: float
    figures: Sequence[Mapping[str, float]]
    beside: Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class Found:
    """Layers to leave in float.

    Attributes:
        nodes: the layers.
        predicted: noise of the output by adding up, 0 or more.
        measured: the damage that was measured.
    """

    nodes: tuple[str, ...]
    predicted: float
    measured: Damage


def best_of_count(known: Known, count: int, measure: Measure) -> Found:
    """Return up to so many layers, of those that were tried the ones that leave least noise.

    Fewer of them where more leave more noise: rounding in two places can cancel out.
    """
    count = min(count, len(known.beside))
    tried = []
    for damages in known.figures:
        layers = _choices(damages)
        nodes = _floats(damages, least_damage(layers, count).widths)
        nodes += [name for name in _order(damages) if name not in nodes]
        tried += _measured(known, damages, [tuple(nodes[:count])], measure)
    path = _one_by_one(known, min(count, _STEPS), None, measure)
    rest = [name for name in tried[-1].nodes if name not in path[-1].nodes]
    tried += _measured(known, known.figures[0], [(*path[-1].nodes, *rest)[:count]], measure)
    return min([*tried, *path], key=lambda found: (found.measured.noise, len(found.nodes)))


def fewest_for(known: Known, limit: float, measure: Measure) -> Found:
    """Return the fewest layers, of those that were tried, that leave no more noise than a limit.

    If no choice does, it is the one that leaves least.
    """
    [nothing] = _measured(known, known.figures[0], [()], measure)
    if nothing.measured.noise <= limit:
        return nothing
    tried = [_shortest(known, damages, limit, measure) for damages in known.figures]
    enough = [len(found.nodes) for found in tried if found.measured.noise <= limit]
    if enough and min(enough) > 1:
        tried += _one_by_one(known, min(min(enough) - 1, _STEPS), limit, measure)
    return min(tried, key=lambda f: _by_size(f, limit))


def _by_size(found: Found, limit: float) -> tuple[bool, int, float]:
    missed = found.measured.noise > limit
    return missed, 0 if missed else len(found.nodes), found.measured.noise


def _shortest(known: Known, damages: Mapping[str, float], limit: float, measure: Measure) -> Found:
    """Return the shortest beginning of an order that leaves no more noise than a limit."""
    order = _order(damages)
    # by adding up, from which the measurement departs a little to either side
    rest = max(known.total - sum(damages.values()), 0.0)
    widths = least_cost(_choices(damages), max(limit - rest, 0.0)).widths
    count = max(len(_floats(damages, widths)), 1)

    def of(count: int) -> Found:
        return _measured(known, damages, [tuple(order[:count])], measure)[0]

    found = of(count)
    while found.measured.noise > limit and count < len(order):
        count += 1
        found = of(count)
    while found.measured.noise <= limit and count > 1:
        fewer = of(count - 1)
        if fewer.measured.noise > limit:
            break
        found, count = fewer, count - 1
    return found


def _one_by_one(known: Known, count: int, limit: float | None, measure: Measure) -> list[Found]:
    """Add layer after layer, each the one with which least noise is measured; return each step.

    Those that do most by each figure are tried, and those beside what is in float already.
    """
    path: list[Found] = []
    nodes: tuple[str, ...] = ()
    orders = [_order(damages) for damages in known.figures]
    while len(nodes) < count:
        names: dict[str, None] = {}
        for order in orders:
            names |= dict.fromkeys([n for n in order if n not in nodes][:_TRIED_FIRST])
        near = (n for chosen in nodes for n in known.beside[chosen])
        names |= dict.fromkeys(n for n in near if n not in nodes)
        found = _measured(known, known.figures[0], [(*nodes, n) for n in names], measure)
        path.append(min(found, key=lambda f: f.measured.noise))
        nodes = path[-1].nodes
        if limit is not None and path[-1].measured.noise <= limit:
            break
    return path


def _measured(
    known: Known,
    damages: Mapping[str, float],
    sets: Sequence[tuple[str, ...]],
    measure: Measure,
) -> list[Found]:
    return [
        Found(nodes, max(known.total - sum(damages[n] for n in nodes), 0.0), damage)
        for nodes, damage in zip(sets, measure(sets), strict=True)
    ]


def _choices(damages: Mapping[str, float]) -> list[list[Choice]]:
    """Return each layer's choice between float, of which one counts, and integers."""
    return [[Choice(FLOAT, 0.0, 1.0), Choice(8, d, 0.0)] for d in damages.values()]


def _floats(damages: Mapping[str, float], widths: Sequence[int]) -> list[str]:
    """Return the layers that are to be in float, those of most damage first."""
    chosen = {name for name, width in zip(damages, widths, strict=True) if width == FLOAT}
    return [name for name in _order(damages) if name in chosen]


def _order(damages: Mapping[str, float]) -> list[str]:
    return sorted(damages, key=lambda name: damages[name], reverse=True)
